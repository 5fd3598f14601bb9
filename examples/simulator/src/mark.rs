//! The mark that a test puts into a call to find it again: the first `call-[A-Za-z0-9-]+`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use memchr::memmem;

use crate::state::Shared;

const START: &[u8] = b"call-";
/// What is longer is cut.
const LONGEST: usize = 1000;

/// The first mark in a text.
pub(crate) fn first(text: &str) -> Option<String> {
    let mut search = Search::default();
    search.feed(text.as_bytes()).or_else(|| search.end())
}

/// Looks for the first mark in bytes that come in pieces.
#[derive(Default)]
struct Search {
    /// What may still become a mark, or part of one.
    rest: Vec<u8>,
}

impl Search {
    /// The mark, once what follows shows where it ends.
    fn feed(&mut self, piece: &[u8]) -> Option<String> {
        self.rest.extend_from_slice(piece);
        let mut from = 0;
        while let Some(offset) = memmem::find(&self.rest[from..], START) {
            let start = from + offset;
            let end = end_of_mark(&self.rest, start);
            if end == self.rest.len() && end - start < LONGEST {
                self.rest.drain(..start);
                return None;
            }
            from = start + START.len();
            if end > from {
                return Some(String::from_utf8_lossy(&self.rest[start..end]).into_owned());
            }
        }
        let kept = self.rest.len().min(START.len() - 1);
        self.rest.drain(..self.rest.len() - kept);
        None
    }

    /// The mark that the end of everything ends.
    fn end(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.rest);
        let is_mark = rest.starts_with(START) && rest.len() > START.len();
        is_mark.then(|| String::from_utf8_lossy(&rest).into_owned())
    }
}

fn end_of_mark(text: &[u8], start: usize) -> usize {
    let after = start + START.len();
    let belongs = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'-';
    let length = text[after..].iter().take_while(belongs).count();
    after + length.min(LONGEST)
}

/// A request's body, as it comes or read already.
pub(crate) type SearchedInner = UnsyncBoxBody<Bytes, hyper::Error>;

/// A request's body, searched for the call's mark as it is read.
pub(crate) struct SearchedBody {
    inner: SearchedInner,
    search: Option<Search>,
    shared: Arc<Shared>,
    number: u64,
}

impl SearchedBody {
    /// The body of the call that was written down under `number`.
    pub(crate) fn new(inner: SearchedInner, shared: &Arc<Shared>, number: u64) -> SearchedBody {
        let known = shared.lock().calls.get(number).is_some_and(|call| call.marker.is_some());
        let search = (!known).then(Search::default);
        SearchedBody { inner, search, shared: Arc::clone(shared), number }
    }

    fn found(&mut self, mark: String) {
        self.search = None;
        if let Some(call) = self.shared.lock().calls.get(self.number) {
            call.marker = Some(mark);
        }
    }
}

impl HttpBody for SearchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
            && let Some(mark) = self.search.as_mut().and_then(|search| search.feed(data))
        {
            self.found(mark);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for SearchedBody {
    fn drop(&mut self) {
        if let Some(mark) = self.search.as_mut().and_then(Search::end) {
            self.found(mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mark_is_found() {
        for (text, mark) in [
            ("/v1/search?q=call-17&r=call-18", Some("call-17")),
            ("call-Ab-9_x", Some("call-Ab-9")),
            ("recall-1", Some("call-1")),
            ("call- call-! call-2", Some("call-2")),
            ("call-call-3", Some("call-call-3")),
            ("call-", None),
            ("cal", None),
            ("", None),
        ] {
            assert_eq!(first(text).as_deref(), mark, "{text}");
        }
    }

    #[test]
    fn pieces_make_no_difference() {
        let text = "{\"call-\": \"x\", \"query\": \"call-a-1\", \"next\": \"call-2\"}";
        for size in 1..text.len() {
            let mut search = Search::default();
            let found = text.as_bytes().chunks(size).find_map(|piece| search.feed(piece));
            assert_eq!(found.as_deref(), Some("call-a-1"), "{size}");
        }
    }

    #[test]
    fn a_mark_without_end_is_cut() {
        let mut search = Search::default();
        let found = (0..).find_map(|_| search.feed(b"call-xxx")).unwrap();
        assert!(found.len() >= LONGEST && found.len() < LONGEST + 20, "{}", found.len());
    }
}
