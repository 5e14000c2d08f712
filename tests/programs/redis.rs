//! Redis, with its data in memory only and with an append-only file in the container's writable layer.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::ledger::{Ledger, Store, there_and_back};
use super::tour::{Tour, on_tour};
use super::variants::{Variant, app};
use crate::lab::{App, Result, fail};

const KEY: &str = "ledger";

#[test]
fn redis_without_a_file() -> Result {
    let variants = [Variant::Root, Variant::Hardened { read_only: true }];
    on_tour("redis", &variants, async |tour, variant| {
        let command = "redis-server /programs/redis.conf";
        keeps_all(tour, variant, &app("redis", command, variant), false).await
    })
}

#[test]
fn redis_with_an_append_only_file() -> Result {
    let variants = [Variant::Root, Variant::Hardened { read_only: false }];
    on_tour("redis-aof", &variants, async |tour, variant| {
        let command =
            "redis-server /programs/redis.conf --dir /home/app --appendonly yes --appendfsync always";
        keeps_all(tour, variant, &app("redis-aof", command, variant), true).await
    })
}

pub async fn keeps_all(tour: &Tour<'_>, variant: Variant, app: &App, file: bool) -> Result {
    let (_, service) = tour.start(app).await?;
    let mut client = Redis::at(&service);
    let life = client.life().await?;
    let ledger = Ledger::start(Redis::at(&service));
    there_and_back(tour, variant, app, &ledger, async |leg| {
        client = Redis::at(&format!("{}:8080", leg.after.ip));
        assert_eq!(client.life().await?, life, "the same process");
        Ok(())
    })
    .await?;
    let account = ledger.finish().await?;
    account.check(&client.all().await?)?;
    if file {
        client.call(&["DEBUG", "LOADAOF"]).await?;
        account.check(&client.all().await?)?;
    }
    tour.end(app).await
}

/// A client that speaks just enough of the protocol.
struct Redis {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Redis {
    fn at(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    /// Of this one process: the number that it drew when it began.
    async fn life(&mut self) -> Result<String> {
        let text = self.call(&["INFO", "server"]).await?.join("\n");
        match text.lines().find_map(|line| line.strip_prefix("run_id:")) {
            Some(id) => Ok(id.trim().to_owned()),
            None => fail("INFO names no run_id"),
        }
    }

    async fn all(&mut self) -> Result<Vec<u64>> {
        let list = self.call(&["LRANGE", KEY, "0", "-1"]).await?;
        list.iter().map(|word| Ok(word.parse()?)).collect()
    }

    /// The answer's words: one, or those of a list.
    async fn call(&mut self, words: &[&str]) -> Result<Vec<String>> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect(&self.address).await?),
        };
        // Kept only once the answer is whole.
        let stream = self.stream.insert(stream);
        let mut message = format!("*{}\r\n", words.len());
        for word in words {
            message += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(message.as_bytes()).await?;
        let head = line(stream).await?;
        let Some(count) = head.strip_prefix('*') else { return Ok(vec![word(stream, &head).await?]) };
        let mut list = Vec::new();
        for _ in 0..count.parse::<usize>()? {
            let head = line(stream).await?;
            list.push(word(stream, &head).await?);
        }
        Ok(list)
    }
}

impl Store for Redis {
    async fn append(&mut self, number: u64) -> Result {
        self.call(&["RPUSH", KEY, &number.to_string()]).await.map(drop)
    }

    fn disconnect(&mut self) {
        self.stream = None;
    }
}

async fn word(stream: &mut BufReader<TcpStream>, head: &str) -> Result<String> {
    let (kind, rest) = head.split_at_checked(1).unwrap_or_default();
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>()? + 2];
            stream.read_exact(&mut bytes).await?;
            Ok(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned())
        }
        _ => fail(format!("redis answers {head:?}")),
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return fail("redis closed the connection");
    }
    Ok(line.trim_end().to_owned())
}
