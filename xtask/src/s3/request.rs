//! One signed request to an S3 server on this machine, to see whether it answers and whether it
//! checks signatures. Signature Version 4:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer is never larger than this.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Who signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret_key: String,
    /// The region that is part of the signature.
    pub region: String,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// GET, PUT, …
    pub method: &'a str,
    /// Begins with a slash; only characters that need no escape.
    pub path: &'a str,
    /// `key=value` pairs by key, joined by `&`; only characters that need no escape.
    pub query: &'a str,
    /// What is stored.
    pub body: &'a [u8],
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code of HTTP.
    pub status: u16,
    /// What came with it.
    pub body: Vec<u8>,
}

/// Sends a request to 127.0.0.1 at `port`, signed if there is a signer.
///
/// # Errors
/// When nothing answers there in time, or not by HTTP.
#[allow(
    clippy::disallowed_methods,
    reason = "a signature holds for minutes of real time; nothing here is simulated"
)]
pub fn send(port: u16, request: &Request, signer: Option<&Signer>) -> anyhow::Result<Answer> {
    let host = format!("127.0.0.1:{port}");
    let now = std::time::SystemTime::now();
    let headers = match signer {
        Some(signer) => signer.headers(&host, request, now.into()),
        None => String::new(),
    };
    let target = match request.query {
        "" => request.path.to_owned(),
        query => format!("{}?{query}", request.path),
    };
    let head = format!(
        "{} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        request.method,
        request.body.len()
    );
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(request.body)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> anyhow::Result<Answer> {
    const BLANK_LINE: &[u8] = b"\r\n\r\n";
    let mut places = answer.windows(BLANK_LINE.len());
    let Some(end) = places.position(|place| place == BLANK_LINE) else {
        bail!("the answer is not HTTP");
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok(Answer {
        status: status.context("the answer is not HTTP")?,
        body: answer[end + BLANK_LINE.len()..].to_vec(),
    })
}

impl Signer {
    /// The lines that sign a request at that time, each with its end.
    fn headers(&self, host: &str, request: &Request, now: DateTime<Utc>) -> String {
        const SIGNED: &str = "host;x-amz-content-sha256;x-amz-date";
        let time = now.format("%Y%m%dT%H%M%SZ").to_string();
        let date = &time[..8];
        let payload = hex(&Sha256::digest(request.body));
        let canonical = format!(
            "{}\n{}\n{}\nhost:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{time}\n\n{SIGNED}\n{payload}",
            request.method, request.path, request.query
        );
        let scope = format!("{date}/{}/s3/aws4_request", self.region);
        let canonical = hex(&Sha256::digest(canonical));
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{canonical}");
        let first = format!("AWS4{}", self.secret_key).into_bytes();
        let key = [date, &self.region, "s3", "aws4_request"]
            .iter()
            .fold(first, |key, word| keyed_hash(&key, word));
        let signature = hex(&keyed_hash(&key, &to_sign));
        format!(
            "x-amz-content-sha256: {payload}\r\nx-amz-date: {time}\r\nauthorization: \
             AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={SIGNED},Signature={signature}\r\n",
            self.access_key
        )
    }
}

fn keyed_hash(key: &[u8], message: &str) -> Vec<u8> {
    let mut hash = Hmac::<Sha256>::new_from_slice(key).expect("any length of key will do");
    hash.update(message.as_bytes());
    hash.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text grows");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    /// The examples of the page that describes the signature.
    #[test]
    fn signatures_are_those_of_the_documentation() {
        let signer = Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            region: "us-east-1".to_owned(),
        };
        let host = "examplebucket.s3.amazonaws.com";
        let now = Utc.with_ymd_and_hms(2013, 5, 24, 0, 0, 0).unwrap();
        for (query, signature) in [
            (
                "lifecycle=",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "max-keys=2&prefix=J",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let request = Request {
                method: "GET",
                path: "/",
                query,
                body: b"",
            };
            let headers = signer.headers(host, &request, now);
            assert!(headers.contains(signature), "{headers}");
        }
    }

    #[test]
    fn status_and_body_are_read() -> anyhow::Result<()> {
        let answer = parse(b"HTTP/1.1 403 Forbidden\r\na: b\r\n\r\nno\r\n\r\n")?;
        assert_eq!(answer.status, 403);
        assert_eq!(answer.body, b"no\r\n\r\n");
        assert!(parse(b"").is_err());
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
        Ok(())
    }
}
