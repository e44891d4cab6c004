//! Lines of an input, placed in virtual time.

use super::compression::Decoded;
use super::{InputError, InputLine, JUMP_MS_MAX, LINE_BYTES_MAX};
use crate::json_number::seconds_to_ms;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::{self, BufRead, Read};

/// The lines of an input, each with its moment. After an error there are no more.
pub struct Lines {
    name: String,
    reader: Decoded,
    start_unix_ms: i64,
    now_unix_ms: Option<i64>,
    number: u64,
    count: u64,
    ahead: u64,
    behind: u64,
    failed: bool,
}

/// What of an event decides its place: the rest is the processor's affair.
#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow, default)]
    ticker: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
}

impl Lines {
    pub(super) fn new(name: String, reader: Decoded, start_unix_ms: i64) -> Lines {
        Lines {
            name,
            reader,
            start_unix_ms,
            now_unix_ms: None,
            number: 0,
            count: 0,
            ahead: 0,
            behind: 0,
            failed: false,
        }
    }

    /// The same lines in a run that starts at `start_unix_ms`.
    pub(super) fn from(mut self, start_unix_ms: i64) -> Lines {
        self.start_unix_ms = start_unix_ms;
        self
    }

    pub(super) fn count_so_far(&self) -> u64 {
        self.count
    }

    pub(super) fn ahead(&self) -> u64 {
        self.ahead
    }

    pub(super) fn behind(&self) -> u64 {
        self.behind
    }

    /// The timestamp of the next line.
    pub(super) fn next_unix_ms(&mut self) -> Option<Result<i64, InputError>> {
        self.read_line()
            .map(|line| line.and_then(|line| Ok(self.place(&line)?.1)))
    }

    /// The next line that is not empty, without its end.
    fn read_line(&mut self) -> Option<Result<Vec<u8>, InputError>> {
        while !self.failed {
            let mut line = Vec::new();
            let limit = LINE_BYTES_MAX as u64 + 2;
            let read = self
                .reader
                .by_ref()
                .take(limit)
                .read_until(b'\n', &mut line);
            match read {
                Ok(0) => return None,
                Ok(_) => self.number += 1,
                Err(source) => return Some(Err(self.damaged(source))),
            }
            while line
                .last()
                .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
            {
                line.pop();
            }
            if line.len() > LINE_BYTES_MAX {
                let what = format!("longer than {LINE_BYTES_MAX} bytes");
                let fix = "put one JSON event on each line, each ended by a line feed";
                return Some(Err(self.wrong(what, fix)));
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(Ok(line));
            }
        }
        None
    }

    fn damaged(&mut self, cause: io::Error) -> InputError {
        self.failed = true;
        InputError::Damaged {
            name: self.name.clone(),
            line: self.number,
            cause,
        }
    }

    fn wrong(&mut self, what: String, fix: &'static str) -> InputError {
        self.failed = true;
        InputError::Line {
            name: self.name.clone(),
            line: self.number,
            what,
            fix,
        }
    }

    /// Key and timestamp of a line.
    fn place(&mut self, line: &[u8]) -> Result<(Option<Bytes>, i64), InputError> {
        const FIX: &str = "give the event a \"timestamp\" in Unix seconds, for example \
                           {\"ticker\":\"AMZN\",\"price\":150.25,\"volume\":100,\"timestamp\":1609459200}, \
                           or take the line out";
        let text = match std::str::from_utf8(line) {
            Ok(text) => text,
            Err(e) => {
                let what = format!("not UTF-8 at byte {}", e.valid_up_to() + 1);
                return Err(self.wrong(what, "store the file as UTF-8, or take the line out"));
            }
        };
        let place: Place<'_> = match serde_json::from_str(text) {
            Ok(place) => place,
            Err(e) => return Err(self.wrong(format!("no JSON object of an event ({e})"), FIX)),
        };
        let Some(timestamp) = place.timestamp else {
            return Err(self.wrong("no timestamp to place it in time".to_owned(), FIX));
        };
        let Some(unix_ms) = seconds_to_ms(timestamp.get()) else {
            let shown: String = timestamp.get().chars().take(40).collect();
            return Err(self.wrong(
                format!("the timestamp {shown} is no time in Unix seconds"),
                FIX,
            ));
        };
        let ticker = place.ticker.map_or("null", RawValue::get);
        let key: Option<String> = serde_json::from_str(ticker).ok();
        Ok((key.map(|key| Bytes::from(key.into_bytes())), unix_ms))
    }

    /// The moment of a line: its timestamp, but never before the line before, and not far ahead.
    fn moment(&mut self, unix_ms: i64) -> u64 {
        let now = self.now_unix_ms.unwrap_or(self.start_unix_ms);
        if unix_ms > now.saturating_add(JUMP_MS_MAX) {
            self.ahead += 1;
        } else if unix_ms >= now {
            self.now_unix_ms = Some(unix_ms);
        } else {
            self.behind += 1;
        }
        let now = self.now_unix_ms.unwrap_or(self.start_unix_ms);
        u64::try_from(now.saturating_sub(self.start_unix_ms)).unwrap_or(0)
    }
}

impl Iterator for Lines {
    type Item = Result<InputLine, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match self.read_line()? {
            Ok(line) => line,
            Err(e) => return Some(Err(e)),
        };
        Some(self.place(&line).map(|(key, unix_ms)| {
            self.count += 1;
            InputLine {
                at_ms: self.moment(unix_ms),
                key,
                value: Bytes::from(line),
            }
        }))
    }
}
