//! As much of Kafka's protocol as chaos needs: to read what passes its proxy, and to look at a cluster
//! from outside, without the client library that is on trial.
//!
//! Comes in: bytes. Goes out: the fields of a request or an answer.
//! Never here: connections that last.
//!
//! Layouts: <https://kafka.apache.org/protocol>.

use anyhow::{Context, bail};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// `AddPartitionsToTxn`.
pub const ADD_PARTITIONS: i16 = 24;
/// `AddOffsetsToTxn`.
pub const ADD_OFFSETS: i16 = 25;
/// `EndTxn`.
pub const END_TXN: i16 = 26;

/// A request or an answer is never larger than this: brokers refuse more.
pub const FRAME_BYTES_MAX: usize = 128 << 20;
/// How long an answer to a question of [`ask`] may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Reads one request or answer: its length in four bytes, then its bytes, which are returned.
///
/// # Errors
/// When the connection ends, or what comes is no frame.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if !(4..=FRAME_BYTES_MAX).contains(&length) {
        let message = format!("a frame of {length} bytes: this is not Kafka's protocol");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

/// Writes one request or answer.
///
/// # Errors
/// When the connection ends.
pub fn write_frame(stream: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(frame);
    stream.write_all(&bytes)
}

/// What every request begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Which request.
    pub key: i16,
    /// Its version.
    pub version: i16,
    /// What its answer begins with.
    pub correlation: i32,
}

/// The header of a request.
///
/// # Errors
/// When it ends too early.
pub fn request_header(frame: &[u8]) -> anyhow::Result<RequestHeader> {
    let mut reader = Reader(frame);
    Ok(RequestHeader {
        key: reader.i16()?,
        version: reader.i16()?,
        correlation: reader.i32()?,
    })
}

/// The `transactional.id` of `AddPartitionsToTxn`, `AddOffsetsToTxn` and `EndTxn`, which all begin with
/// it; versions from 3 on are in the compact encoding.
///
/// # Errors
/// When the request is another one, or a version that only brokers send.
pub fn transactional_id(frame: &[u8]) -> anyhow::Result<String> {
    let header = request_header(frame)?;
    let is_batch = header.key == ADD_PARTITIONS && header.version >= 4;
    if ![ADD_PARTITIONS, ADD_OFFSETS, END_TXN].contains(&header.key) || is_batch {
        bail!("request {} version {}", header.key, header.version);
    }
    let mut reader = Reader(&frame[8..]);
    reader.string()?; // client id
    let id = if header.version >= 3 {
        reader.take(1)?; // no tagged fields
        reader.compact_string()?
    } else {
        reader.string()?
    };
    Ok(String::from_utf8_lossy(id).into_owned())
}

/// The error code in the answer to `EndTxn` of that version.
///
/// # Errors
/// When it ends too early.
pub fn end_txn_error(answer: &[u8], version: i16) -> anyhow::Result<i16> {
    let mut reader = Reader(answer);
    reader.take(4)?; // correlation
    if version >= 3 {
        reader.take(1)?; // no tagged fields
    }
    reader.take(4)?; // throttle time
    reader.i16()
}

/// Sends one request on a connection of its own; the answer is without its header.
///
/// # Errors
/// When nothing answers at that port in time.
pub fn ask(port: u16, key: i16, version: i16, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut request = Writer::default();
    request.i16(key).i16(version).i32(1).string("xtask-chaos");
    request.0.extend(body);
    let answer = exchange(port, &request.0, TIMEOUT)?;
    Ok(answer[4..].to_vec())
}

/// Sends a whole request on a connection of its own; the answer is whole too.
///
/// # Errors
/// When nothing answers at that port in time.
pub fn exchange(port: u16, request: &[u8], limit: Duration) -> anyhow::Result<Vec<u8>> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write_frame(&mut stream, request)?;
    Ok(read_frame(&mut stream)?)
}

/// What is left of a request or an answer.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `count` bytes.
    ///
    /// # Errors
    /// When there are fewer; so for all others.
    pub fn take(&mut self, count: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .context("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of two bytes.
    ///
    /// # Errors
    /// See [`Reader::take`].
    pub fn i16(&mut self) -> anyhow::Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    /// A number of four bytes.
    ///
    /// # Errors
    /// See [`Reader::take`].
    pub fn i32(&mut self) -> anyhow::Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    /// A number of eight bytes.
    ///
    /// # Errors
    /// See [`Reader::take`].
    pub fn i64(&mut self) -> anyhow::Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }

    /// A string; one that is null is empty.
    ///
    /// # Errors
    /// See [`Reader::take`].
    pub fn string(&mut self) -> anyhow::Result<&'a [u8]> {
        let length = self.i16()?;
        self.take(usize::try_from(length).unwrap_or(0))
    }

    /// Bytes; those that are null are none.
    ///
    /// # Errors
    /// See [`Reader::take`].
    pub fn bytes(&mut self) -> anyhow::Result<&'a [u8]> {
        let length = self.i32()?;
        self.take(usize::try_from(length).unwrap_or(0))
    }

    /// A string in the compact encoding, of up to 126 bytes.
    ///
    /// # Errors
    /// See [`Reader::take`].
    pub fn compact_string(&mut self) -> anyhow::Result<&'a [u8]> {
        let length = self.take(1)?[0];
        if length > 127 {
            bail!("a string of more than 126 bytes");
        }
        self.take(usize::from(length).saturating_sub(1))
    }

    /// Reads a list.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<T>> {
        let count = self.i32()?;
        (0..count).map(|_| read(self)).collect()
    }
}

/// A request that is being written.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// A number of one byte.
    pub fn i8(&mut self, value: i8) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A number of two bytes.
    pub fn i16(&mut self, value: i16) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A number of four bytes.
    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A number of eight bytes.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A string of up to 32767 bytes.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.i16(i16::try_from(text.len()).unwrap_or_default());
        self.0.extend(text.as_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_txn(version: i16, id: &str) -> Vec<u8> {
        let mut request = Writer::default();
        request.i16(END_TXN).i16(version).i32(9).string("client");
        if version >= 3 {
            let length = i8::try_from(id.len() + 1).expect("it is short");
            request.i8(0).i8(length);
            request.0.extend(id.as_bytes());
        } else {
            request.string(id);
        }
        request.i64(1).i16(0).i8(1);
        request.0
    }

    #[test]
    fn the_transactional_id_is_read_in_both_encodings() -> anyhow::Result<()> {
        for version in [1, 3] {
            let frame = end_txn(version, "ticks-0");
            assert_eq!(transactional_id(&frame)?, "ticks-0");
            assert_eq!(
                request_header(&frame)?,
                RequestHeader {
                    key: END_TXN,
                    version,
                    correlation: 9
                }
            );
        }
        assert!(transactional_id(&end_txn(1, "ticks-0")[..20]).is_err());
        Ok(())
    }

    #[test]
    fn the_error_of_an_answer_is_read_in_both_encodings() -> anyhow::Result<()> {
        let mut old = Writer::default();
        old.i32(9).i32(0).i16(47);
        assert_eq!(end_txn_error(&old.0, 1)?, 47);
        let mut compact = Writer::default();
        compact.i32(9).i8(0).i32(0).i16(90);
        assert_eq!(end_txn_error(&compact.0, 3)?, 90);
        Ok(())
    }

    #[test]
    fn frames_come_back_as_they_were_written_and_others_are_refused() -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, b"frame")?;
        assert_eq!(read_frame(&mut bytes.as_slice())?, b"frame");
        let error = read_frame(&mut b"GET / HTTP/1.1".as_slice()).unwrap_err();
        assert!(error.to_string().contains("not Kafka"), "{error}");
        Ok(())
    }
}
