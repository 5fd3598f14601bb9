//! A caller's connection as Pingora wants it. What is written is gathered: head and body of a short answer leave in one
//! packet and one system call, as they do on Pingora's own listeners, whose buffers are not open to others. What was read
//! ahead, to see what kind of connection it is, is read again.

use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tracing::debug;

use super::intercept::Arrival;

/// About one packet, as Pingora's own; what is larger is passed on at once.
const WRITE_BUFFER: usize = 1460;

/// A connection that was accepted.
#[derive(Debug)]
pub struct Connection {
    stream: BufWriter<TcpStream>,
    /// What was read ahead and nobody has seen yet.
    read_ahead: Bytes,
    /// How it arrived, in the one place where Pingora carries something of ours along.
    arrival: Option<Arc<ProxyDigest>>,
}

impl Connection {
    /// Around a stream that nothing was written to yet.
    pub fn new(stream: TcpStream) -> Self {
        let stream = BufWriter::with_capacity(WRITE_BUFFER, stream);
        Self { stream, read_ahead: Bytes::new(), arrival: None }
    }

    /// The port at which it was accepted.
    pub fn local_port(&self) -> Option<u16> {
        self.stream.get_ref().local_addr().ok().map(|address| address.port())
    }

    /// Gives back what was read ahead: the next read begins with it.
    pub fn rewind(&mut self, read_ahead: Bytes) {
        debug_assert!(self.read_ahead.is_empty(), "what was given back before is read first");
        self.read_ahead = read_ahead;
    }

    /// Notes how it arrived, for every request on it.
    pub fn arrived(&mut self, arrival: Arrival) -> pingora::Result<()> {
        let no_response = Box::new(ResponseHeader::build(200, Some(0))?);
        self.arrival = Some(Arc::new(ProxyDigest::new(no_response, Some(Box::new(arrival)))));
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.read_ahead.is_empty() {
            return Pin::new(self.stream.get_mut()).poll_read(context, buffer);
        }
        let length = self.read_ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.read_ahead[..length]);
        self.read_ahead.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        if let Err(error) = AsyncWriteExt::shutdown(&mut self.stream).await {
            debug!(operation = "close", %error);
        }
    }
}

impl UniqueID for Connection {
    fn id(&self) -> i32 {
        self.stream.get_ref().as_raw_fd()
    }
}

impl Ssl for Connection {}

impl Peek for Connection {}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.arrival.clone()
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::new(SocketDigest::from_raw_fd(self.stream.get_ref().as_raw_fd())))
    }
}
