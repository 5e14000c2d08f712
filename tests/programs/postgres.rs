//! PostgreSQL under a client that inserts all the time: no committed transaction is lost, none is there twice.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::image::WITH_VOLUMES;
use super::ledger::{Ledger, Store, there_and_back};
use super::tour::{Tour, on_tour};
use super::variants::{Variant, app};
use crate::lab::{App, Result, fail};

const BOTH: [Variant; 2] = [Variant::Root, Variant::Hardened { read_only: false }];
const MAKE: &str = "CREATE TABLE ledger (number bigint NOT NULL)";
/// Of this one process, and what is only in its memory.
const LIFE: &str = "SELECT pg_postmaster_start_time()";

#[test]
fn postgresql_with_its_data_in_the_writable_layer() -> Result {
    on_tour("postgresql", &BOTH, async |tour, variant| {
        loses_nothing(tour, variant, server("postgresql", variant)).await
    })
}

#[test]
fn postgresql_with_its_data_in_a_volume_of_the_image() -> Result {
    on_tour("postgresql-volume", &BOTH, async |tour, variant| {
        let image = serde_json::json!({ "containers": [{ "image": WITH_VOLUMES }] });
        loses_nothing(tour, variant, server("postgresql-volume", variant).pod(image)).await
    })
}

pub fn server(name: &str, variant: Variant) -> App {
    // As root it makes its folder and gives root up, as the official image's script does.
    let data = if variant == Variant::Root { "/var/lib/postgresql/data" } else { "/home/app/data" };
    app(name, "/programs/postgres.sh", variant).env("PGDATA", data)
}

pub async fn loses_nothing(tour: &Tour<'_>, variant: Variant, app: App) -> Result {
    let (_, service) = tour.start(&app).await?;
    let mut client = Postgres::at(&service);
    client.query(MAKE).await?;
    let life = client.query(LIFE).await?;
    let ledger = Ledger::start(Postgres::at(&service));
    there_and_back(tour, variant, &app, &ledger, async |leg| {
        client = Postgres::at(&format!("{}:8080", leg.after.ip));
        assert_eq!(client.query(LIFE).await?, life, "the same process");
        Ok(())
    })
    .await?;
    let account = ledger.finish().await?;
    account.check(&client.all().await?)?;
    client.query("CHECKPOINT").await?;
    tour.end(&app).await
}

/// A client that speaks just enough of the protocol.
struct Postgres {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Postgres {
    fn at(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    async fn all(&mut self) -> Result<Vec<u64>> {
        let rows = self.query("SELECT number FROM ledger").await?;
        rows.iter().map(|row| Ok(row.parse()?)).collect()
    }

    /// The first column of each row.
    async fn query(&mut self, text: &str) -> Result<Vec<String>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(&self.address).await?,
        };
        let mut message = vec![b'Q'];
        message.extend(u32::try_from(text.len() + 5)?.to_be_bytes());
        message.extend(text.as_bytes());
        message.push(0);
        stream.write_all(&message).await?;
        let rows = until_ready(&mut stream).await?;
        // Kept only once the answer is whole.
        self.stream = Some(stream);
        Ok(rows)
    }
}

impl Store for Postgres {
    async fn append(&mut self, number: u64) -> Result {
        self.query(&format!("INSERT INTO ledger VALUES ({number})")).await.map(drop)
    }

    fn disconnect(&mut self) {
        self.stream = None;
    }
}

async fn connect(address: &str) -> Result<BufReader<TcpStream>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.get_ref().set_nodelay(true)?;
    let words = b"user\0postgres\0database\0postgres\0\0";
    let mut message = u32::try_from(words.len() + 8)?.to_be_bytes().to_vec();
    message.extend(196_608_u32.to_be_bytes()); // protocol 3.0
    message.extend(words);
    stream.write_all(&message).await?;
    until_ready(&mut stream).await?;
    Ok(stream)
}

/// Reads messages until the server waits for the next query; the first column of all rows among them.
async fn until_ready(stream: &mut BufReader<TcpStream>) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await?.saturating_sub(4);
        let mut body = vec![0; usize::try_from(length)?];
        stream.read_exact(&mut body).await?;
        match kind {
            b'Z' => return Ok(rows),
            b'E' => return fail(format!("postgres: {}", String::from_utf8_lossy(&body).replace('\0', " "))),
            // Two bytes of column count, four of the first column's length.
            b'D' => rows.push(String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into_owned()),
            _ => {}
        }
    }
}
