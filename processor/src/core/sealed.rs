//! Blobs of the stored state: magic, version, content, checksum. Integers are little-endian; texts and
//! lists carry their length.

use crate::core::snapshot::SnapshotError;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// Version that this release writes; it reads no other.
pub(super) const VERSION: u16 = 2;
const CHECKSUM_BYTES: usize = 8;

/// Starts a blob.
pub(super) fn begin(magic: [u8; 4]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&magic);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out
}

/// Ends a blob.
pub(super) fn seal(mut out: Vec<u8>) -> Bytes {
    let checksum = xxh3_64(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    Bytes::from(out)
}

/// Reads a sealed blob; every length is checked against what is left.
pub(super) struct Reader<'a> {
    part: String,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks magic, version and checksum.
    pub(super) fn open(
        part: String,
        magic: [u8; 4],
        bytes: &'a [u8],
    ) -> Result<Self, SnapshotError> {
        let mut reader = Reader { part, rest: bytes };
        if reader.array::<4>().ok() != Some(magic) {
            return Err(SnapshotError::NotASnapshot { part: reader.part });
        }
        let found = u16::from_le_bytes(reader.array()?);
        if found != VERSION {
            return Err(SnapshotError::OtherVersion {
                part: reader.part,
                found,
            });
        }
        let Some((rest, tail)) = reader.rest.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err(reader.damaged("it is cut off"));
        };
        let sealed = &bytes[..bytes.len() - CHECKSUM_BYTES];
        if xxh3_64(sealed) != u64::from_le_bytes(*tail) {
            return Err(reader.damaged("its checksum is wrong"));
        }
        reader.rest = rest;
        Ok(reader)
    }

    pub(super) fn damaged(&self, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged {
            part: self.part.clone(),
            what,
        }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], SnapshotError> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.damaged("it is cut off")),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("exactly N bytes were taken"))
    }

    pub(super) fn i64(&mut self) -> Result<i64, SnapshotError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, SnapshotError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i128(&mut self) -> Result<i128, SnapshotError> {
        Ok(i128::from_le_bytes(self.array()?))
    }

    /// A number of items that take at least `item_bytes` each.
    pub(super) fn count(&mut self, item_bytes: usize) -> Result<usize, SnapshotError> {
        let count = self.u64()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() / item_bytes => Ok(count),
            _ => Err(self.damaged("a length is beyond its end")),
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn finish(&self) -> Result<(), SnapshotError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.damaged("there are bytes too many"))
        }
    }
}
