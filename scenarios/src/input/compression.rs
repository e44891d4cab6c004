//! What compresses a file is seen by its first bytes, not by its name.

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

const BUFFER_BYTES: usize = 1 << 16;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Skippable zstd frames begin with 50 2A 4D 18 to 5F 2A 4D 18.
const ZSTD_SKIPPABLE_TAIL: [u8; 3] = [0x2a, 0x4d, 0x18];

/// A decoded stream.
pub(super) type Decoded = Box<dyn BufRead + Send>;

/// The content of `file`, decompressed if it is gzip or zstd.
pub(super) fn decoded(file: File) -> io::Result<Decoded> {
    let mut raw = BufReader::with_capacity(BUFFER_BYTES, file);
    let head = raw.fill_buf()?;
    Ok(if head.starts_with(&GZIP_MAGIC) {
        Box::new(BufReader::with_capacity(
            BUFFER_BYTES,
            MultiGzDecoder::new(raw),
        ))
    } else if head.starts_with(&ZSTD_MAGIC) || is_skippable(head) {
        Box::new(BufReader::with_capacity(
            BUFFER_BYTES,
            ZstdFrames::Between(raw),
        ))
    } else {
        Box::new(raw)
    })
}

fn is_skippable(head: &[u8]) -> bool {
    head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == ZSTD_SKIPPABLE_TAIL
}

/// A zstd file is a row of frames; the decoder knows only one.
enum ZstdFrames<R: BufRead> {
    Between(R),
    Inside(Box<StreamingDecoder<R, FrameDecoder>>),
    Ended,
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(self, ZstdFrames::Ended) {
                ZstdFrames::Ended => return Ok(0),
                ZstdFrames::Between(source) => match next_frame(source)? {
                    Some(decoder) => *self = ZstdFrames::Inside(Box::new(decoder)),
                    None => return Ok(0),
                },
                ZstdFrames::Inside(mut decoder) => {
                    let read = decoder.read(buffer)?;
                    if read > 0 {
                        *self = ZstdFrames::Inside(decoder);
                        return Ok(read);
                    }
                    *self = ZstdFrames::Between(decoder.into_inner());
                }
            }
        }
    }
}

fn next_frame<R: BufRead>(mut source: R) -> io::Result<Option<StreamingDecoder<R, FrameDecoder>>> {
    loop {
        let head = source.fill_buf()?;
        if head.is_empty() {
            return Ok(None);
        }
        if !is_skippable(head) {
            return StreamingDecoder::new(source)
                .map(Some)
                .map_err(io::Error::other);
        }
        let mut header = [0_u8; 8];
        source.read_exact(&mut header)?;
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        io::copy(
            &mut source.by_ref().take(u64::from(length)),
            &mut io::sink(),
        )?;
    }
}
