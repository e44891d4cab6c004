//! Values as bytes, for scratch files that no other program or version reads.

use bytes::Bytes;

/// Written as bytes and read back.
pub trait Code: Sized {
    /// Appends it.
    fn put(&self, to: &mut Vec<u8>);

    /// Takes it from the front; `None` when the bytes are none of it.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

/// Takes so many bytes from the front.
fn take_bytes<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (bytes, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(bytes)
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Code for $number {
            fn put(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                let bytes = take_bytes(from, size_of::<Self>())?;
                Some(Self::from_le_bytes(bytes.try_into().ok()?))
            }
        }
    )*};
}

number!(u8, u32, u64, u128, i32, i64, i128);

impl Code for bool {
    fn put(&self, to: &mut Vec<u8>) {
        u8::from(*self).put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        u8::take(from).map(|byte| byte != 0)
    }
}

fn put_slice(bytes: &[u8], to: &mut Vec<u8>) {
    (bytes.len() as u64).put(to);
    to.extend_from_slice(bytes);
}

fn take_slice<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = usize::try_from(u64::take(from)?).ok()?;
    take_bytes(from, count)
}

impl Code for String {
    fn put(&self, to: &mut Vec<u8>) {
        put_slice(self.as_bytes(), to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        std::str::from_utf8(take_slice(from)?)
            .ok()
            .map(str::to_owned)
    }
}

impl Code for Bytes {
    fn put(&self, to: &mut Vec<u8>) {
        put_slice(self, to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        take_slice(from).map(Bytes::copy_from_slice)
    }
}

impl Code for () {
    fn put(&self, _to: &mut Vec<u8>) {}

    fn take(_from: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl<T: Code, E: Code> Code for Result<T, E> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_ok().put(to);
        match self {
            Ok(value) => value.put(to),
            Err(error) => error.put(to),
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::take(from)? {
            Ok(T::take(from)?)
        } else {
            Err(E::take(from)?)
        })
    }
}

impl<T: Code> Code for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::take(from)? {
            Some(T::take(from)?)
        } else {
            None
        })
    }
}

/// Codes a struct as its fields, one after the other.
macro_rules! code_fields {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::code::Code for $name {
            fn put(&self, to: &mut Vec<u8>) {
                $($crate::code::Code::put(&self.$field, to);)*
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: $crate::code::Code::take(from)?),* })
            }
        }
    };
}

pub(crate) use code_fields;

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back<T: Code + PartialEq + std::fmt::Debug>(value: &T) {
        let mut bytes = Vec::new();
        value.put(&mut bytes);
        assert_eq!(T::take(&mut bytes.as_slice()).as_ref(), Some(value));
        for cut in 0..bytes.len() {
            assert_eq!(T::take(&mut &bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn values_come_back_whole_or_not_at_all() {
        there_and_back(&i64::MIN);
        there_and_back(&(u128::MAX - 1));
        there_and_back(&true);
        there_and_back(&"Ünï".to_owned());
        there_and_back(&Some(Bytes::from_static(b"\xff\x00")));
        there_and_back(&None::<Bytes>);
        there_and_back(&Err::<i32, String>("why".to_owned()));
        there_and_back(&Ok::<i32, String>(7));
    }
}
