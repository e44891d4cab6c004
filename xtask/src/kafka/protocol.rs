//! The two questions of the Kafka protocol that tell whether a broker is ready: who is in the
//! cluster (Metadata), and who coordinates (FindCoordinator, which also makes the broker create the
//! internal topics). Layouts: <https://kafka.apache.org/protocol>.

use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const METADATA: i16 = 3;
/// Known to all brokers from 0.11 up to 4.x.
const METADATA_VERSION: i16 = 4;
const FIND_COORDINATOR: i16 = 10;
/// Known to all brokers from 2.0 up to 4.x.
const FIND_COORDINATOR_VERSION: i16 = 2;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer is never larger than this: the questions ask for no topics.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Which coordinator is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinator {
    /// Of consumer groups.
    Group = 0,
    /// Of transactions.
    Transaction = 1,
}

/// Ids of the brokers that the broker at `port` knows to be alive, in rising order.
///
/// # Errors
/// When nothing answers there in time, or not by the protocol.
pub fn alive_brokers(port: u16) -> anyhow::Result<Vec<u32>> {
    let mut body = 0_i32.to_be_bytes().to_vec(); // no topics
    body.push(0); // no automatic creation
    let answer = ask(port, METADATA, METADATA_VERSION, &body)?;
    brokers_in(&answer).context("the answer is no Metadata response")
}

/// True when the broker at `port` names a coordinator that is alive.
///
/// # Errors
/// When nothing answers there in time, or not by the protocol.
pub fn has_coordinator(port: u16, kind: Coordinator) -> anyhow::Result<bool> {
    let mut body = string("xtask-ready");
    body.push(kind as u8);
    let answer = ask(port, FIND_COORDINATOR, FIND_COORDINATOR_VERSION, &body)?;
    let mut answer = Reader(&answer);
    answer.take(4)?; // throttle time
    Ok(answer.i16()? == 0)
}

fn brokers_in(answer: &[u8]) -> anyhow::Result<Vec<u32>> {
    let mut answer = Reader(answer);
    answer.take(4)?; // throttle time
    let count = answer.i32()?;
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(u32::try_from(answer.i32()?)?);
        answer.string()?; // host
        answer.take(4)?; // port
        answer.string()?; // rack
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Sends one request on a connection of its own; the answer is without its header.
fn ask(port: u16, key: i16, version: i16, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    const CORRELATION: i32 = 1;
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(CORRELATION.to_be_bytes());
    request.extend(string("xtask"));
    request.extend(body);

    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&u32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;

    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    if !(4..=ANSWER_BYTES_MAX).contains(&length) {
        bail!("an answer of {length} bytes on port {port}: no Kafka broker listens there");
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    if answer[..4] != CORRELATION.to_be_bytes() {
        bail!("an answer to another question on port {port}: no Kafka broker listens there");
    }
    Ok(answer.split_off(4))
}

/// A string of the protocol: its length in two bytes, then its bytes.
fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or_default();
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// What is left of an answer.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .context("the answer ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> anyhow::Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> anyhow::Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    /// A string; a length of −1 is none.
    fn string(&mut self) -> anyhow::Result<&'a [u8]> {
        let length = self.i16()?;
        self.take(usize::try_from(length).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn brokers_are_read_from_a_metadata_answer() -> anyhow::Result<()> {
        let mut answer = 0_i32.to_be_bytes().to_vec();
        answer.extend(2_i32.to_be_bytes());
        for id in [3_i32, 1] {
            answer.extend(id.to_be_bytes());
            answer.extend(string("127.0.0.1"));
            answer.extend(9092_i32.to_be_bytes());
            answer.extend((-1_i16).to_be_bytes());
        }
        assert_eq!(brokers_in(&answer)?, [1, 3]);
        assert!(brokers_in(&answer[..20]).is_err());
        Ok(())
    }

    #[test]
    fn a_port_that_nothing_listens_on_is_an_error() -> anyhow::Result<()> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        assert!(alive_brokers(port).is_err());
        Ok(())
    }
}
