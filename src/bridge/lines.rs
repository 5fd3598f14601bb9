//! What a child writes, line by line, without holding more of a line than one may have.

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A whole line, without its end.
    Whole(Vec<u8>),
    /// A line that was too long, thrown away to its end.
    TooLong {
        /// How many bytes it had.
        length: usize,
    },
}

/// Reads the next line; `None` at the end. A last line without an end is none: its writer died while writing it.
pub async fn next(input: &mut (impl AsyncBufRead + Unpin), longest: usize) -> std::io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut length = 0;
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            return Ok(None);
        }
        let end = memchr::memchr(b'\n', available);
        let part = &available[..end.unwrap_or(available.len())];
        length += part.len();
        if length <= longest {
            line.extend_from_slice(part);
        } else {
            line = Vec::new();
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(Some(if length <= longest { Line::Whole(line) } else { Line::TooLong { length } }));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    #[tokio::test]
    async fn lines_are_read_whole_or_thrown_away() {
        let text = b"one\n\nfour\nfive5\nsix";
        // Smaller than the lines, so that they come in pieces.
        let mut input = BufReader::with_capacity(3, text.as_slice());
        let mut lines = Vec::new();
        while let Some(line) = next(&mut input, 4).await.expect("readable") {
            lines.push(line);
        }
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        assert_eq!(lines, [whole("one"), whole(""), whole("four"), Line::TooLong { length: 5 }]);
    }
}
