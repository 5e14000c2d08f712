//! One HTTP request on a connection of its own: what a reader behind a load balancer sees.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Result, fail};

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        if self.status != 200 {
            return fail(format!("status {}: {}", self.status, String::from_utf8_lossy(&self.body)));
        }
        Ok(serde_json::from_slice(&self.body)?)
    }
}

/// Nobody took the connection: nothing of the request was sent.
#[derive(Debug, thiserror::Error)]
#[error("not connected: {0}")]
pub struct NotConnected(std::io::Error);

/// `head` holds extra header lines, each ended by CRLF.
pub async fn request(
    to: &str,
    method: &str,
    path: &str,
    head: &str,
    body: &[u8],
    limit: Duration,
) -> Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await.map_err(NotConnected)?;
        stream.set_nodelay(true)?;
        let length = body.len();
        let mut message = format!(
            "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n"
        )
        .into_bytes();
        message.extend_from_slice(body);
        stream.write_all(&message).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        parse(&answer)
    };
    timeout(limit, exchange).await.map_err(|_| format!("{method} {to}{path}: no answer within {limit:?}"))?
}

pub async fn get(to: &str, path: &str, limit: Duration) -> Result<Answer> {
    request(to, "GET", path, "", b"", limit).await
}

fn parse(answer: &[u8]) -> Result<Answer> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else { return fail("the connection ended before the answer did") };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let body = answer[end + 4..].to_vec();
    if head.contains("transfer-encoding: chunked") {
        return Ok(Answer { status, body: unchunk(&body)? });
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    match length {
        Some(length) if body.len() < length => fail("the answer is cut off"),
        _ => Ok(Answer { status, body }),
    }
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|two| two == b"\r\n") else {
            return fail("the answer is cut off");
        };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line])?.trim(), 16)?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Ok(whole);
        }
        if rest.len() < size + 2 {
            return fail("the answer is cut off");
        }
        whole.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}
