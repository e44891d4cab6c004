//! A connection to one broker that speaks Kafka's protocol, request by request.
//!
//! Comes in: a request of `kafka_protocol` and its version. Goes out: the answer, or why there is none.

use bytes::{Buf, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any rebalance of a behaviour.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Larger than any answer here.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// See the module.
pub struct Connection {
    stream: TcpStream,
    correlation: i32,
    client_id: StrBytes,
}

impl Connection {
    /// Connects, as the client of that id.
    pub fn open(port: u16, client_id: &str) -> Result<Connection> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Connection {
            stream,
            correlation: 0,
            client_id: StrBytes::from_string(client_id.to_owned()),
        })
    }

    /// Sends a request and reads its answer.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(self.client_id.clone()));
        let mut body = BytesMut::new();
        header
            .encode(&mut body, R::header_version(version))
            .map_err(unfit)?;
        request.encode(&mut body, version).map_err(unfit)?;
        let length = i32::try_from(body.len()).map_err(Error::other)?;
        self.stream.write_all(&length.to_be_bytes())?;
        self.stream.write_all(&body)?;
        let mut answer = self.read()?;
        let header_version = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut answer, header_version).map_err(unfit)?;
        if header.correlation_id != self.correlation {
            let text = format!("answer {} to {}", header.correlation_id, self.correlation);
            return Err(Error::new(ErrorKind::InvalidData, text));
        }
        R::Response::decode(&mut answer, version).map_err(unfit)
    }

    fn read(&mut self) -> Result<bytes::Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from((&length[..]).get_i32()).map_err(Error::other)?;
        if length > ANSWER_BYTES_MAX {
            let text = format!("an answer of {length} bytes");
            return Err(Error::new(ErrorKind::InvalidData, text));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        Ok(answer.into())
    }
}

/// What does not fit the protocol.
fn unfit(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("protocol: {why:#}"))
}
