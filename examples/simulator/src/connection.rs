//! A socket that can be reset under a reply that is being written.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Shared by a connection's task and the requests on it: lets a request break its connection.
#[derive(Clone, Default)]
pub(crate) struct Cutter(Arc<Cut>);

#[derive(Default)]
struct Cut {
    asked: AtomicBool,
    asking: Notify,
}

impl Cutter {
    /// Asks for the connection to be reset.
    pub(crate) fn cut(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        self.0.asking.notify_one();
    }

    /// Has the connection reset, and with it whoever waits for this.
    pub(crate) async fn cut_and_vanish(&self) -> Infallible {
        self.cut();
        std::future::pending().await
    }

    /// Ends when a reset is asked for.
    pub(crate) async fn asked(&self) {
        self.0.asking.notified().await;
    }
}

/// A TCP stream that says goodbye with RST instead of FIN if its [`Cutter`] was used.
pub(crate) struct CuttableStream {
    stream: TcpStream,
    cutter: Cutter,
}

impl CuttableStream {
    pub(crate) fn new(stream: TcpStream, cutter: Cutter) -> CuttableStream {
        CuttableStream { stream, cutter }
    }
}

impl Drop for CuttableStream {
    fn drop(&mut self) {
        if self.cutter.0.asked.load(Ordering::SeqCst) {
            // Should this fail, the client sees an orderly end, still without a reply.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
