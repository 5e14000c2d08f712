//! A pod that holds what moves only if all of it does: sockets on its own address, files in /dev/shm, open files that have
//! lost their names, volumes of its image and of its pod, a file with more holes than any disk has room.
//!
//! GET /state says what it finds of that; POST /add appends the body to a file in each place. Port 8081 listens on the
//! pod's own address and says how long /state is.

use std::error::Error;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, http::StatusCode};
use clap::Parser;
use parking_lot::Mutex;
use serde_json::{Value, json};

#[derive(Parser)]
struct Options {
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: String,
    /// Nothing is ever sent there: it tells which of its addresses the pod would use, and a socket stays connected to it.
    #[arg(long, env = "PEER", default_value = "192.0.2.1:9")]
    peer: String,
    /// Where the image declares a volume, and the pod mounts some.
    #[arg(long, env = "VOLUMES", default_value = "/volume", value_delimiter = ',')]
    volumes: Vec<PathBuf>,
    /// Appends a line to this file and ends: an init container.
    #[arg(long)]
    append: Option<PathBuf>,
    /// Such a file, to tell what is in it.
    #[arg(long, env = "APPENDED")]
    appended: Option<PathBuf>,
}

const SPARSE: u64 = 200 << 30;
const MARKS: [u64; 3] = [0, 77 << 30, SPARSE - 6];

struct Held {
    cookie: String,
    /// On the pod's own address.
    listener: TcpListener,
    connected: UdpSocket,
    bound: UdpSocket,
    /// Connected to `bound`.
    own: UdpSocket,
    appended: Option<PathBuf>,
    /// Where files are kept.
    places: Vec<PathBuf>,
    /// Opened by a name that is gone, while there is another.
    renamed: Vec<File>,
    /// No name is left.
    nameless: Vec<File>,
    /// Open all the time.
    open: Vec<File>,
}

impl Held {
    fn start(options: &Options) -> io::Result<Self> {
        let mut cookie = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut cookie)?;
        let connected = UdpSocket::bind("0.0.0.0:0")?;
        connected.connect(&options.peer)?;
        let address = connected.local_addr()?.ip();
        let bound = UdpSocket::bind((address, 9000))?;
        bound.set_read_timeout(Some(Duration::from_secs(1)))?;
        let own = UdpSocket::bind((address, 0))?;
        own.connect((address, 9000))?;
        let mut places = vec![PathBuf::from("/dev/shm"), PathBuf::from("/tmp")];
        places.extend(options.volumes.iter().cloned());
        let (mut renamed, mut nameless, mut open) = (Vec::new(), Vec::new(), Vec::new());
        for place in &places {
            fs::write(place.join("closed"), format!("closed in {}", place.display()))?;
            fs::set_permissions(place.join("closed"), fs::Permissions::from_mode(0o640))?;
            chown(place.join("closed"), Some(1234), Some(4321))?;
            fs::create_dir_all(place.join("folder/deep"))?;
            fs::write(place.join("folder/deep/file"), place.as_os_str().as_encoded_bytes())?;
            open.push(filled(&place.join("open"))?);
            // As glibc makes a named semaphore.
            renamed.push(filled(&place.join("first"))?);
            fs::hard_link(place.join("first"), place.join("second"))?;
            fs::remove_file(place.join("first"))?;
            nameless.push(filled(&place.join("none"))?);
            fs::remove_file(place.join("none"))?;
        }
        let sparse = File::create("/tmp/sparse")?;
        sparse.set_len(SPARSE)?;
        for at in MARKS {
            sparse.write_all_at(b"marked", at)?;
        }
        let listener = TcpListener::bind((address, 8081))?;
        let cookie = hex::encode(cookie);
        let appended = options.appended.clone();
        Ok(Self { cookie, listener, connected, bound, own, appended, places, renamed, nameless, open })
    }

    fn state(&self) -> io::Result<Value> {
        let files: io::Result<Vec<Value>> =
            self.places.iter().enumerate().map(|(at, place)| self.files(at, place)).collect();
        let sparse = File::open("/tmp/sparse")?;
        let facts = sparse.metadata()?;
        let marks = MARKS.map(|at| {
            let mut mark = [0; 6];
            sparse.read_exact_at(&mut mark, at).is_ok_and(|()| &mark == b"marked")
        });
        Ok(json!({
            "cookie": self.cookie,
            "files": files?,
            "appended": self.appended.as_ref().map(fs::read_to_string).transpose()?,
            "sparse": { "size": facts.len(), "isSmall": facts.blocks() * 512 < 1 << 20, "marks": marks },
            "sockets": {
                "listener": address(self.listener.local_addr()?.ip()),
                "connected": address(self.connected.local_addr()?.ip()),
                "peer": self.connected.peer_addr()?,
                "bound": address(self.bound.local_addr()?.ip()),
                "own": address(self.own.local_addr()?.ip()),
                "ownPeer": address(self.own.peer_addr()?.ip()),
                "talksToItself": self.talks_to_itself(),
            },
        }))
    }

    fn talks_to_itself(&self) -> bool {
        let mut answer = [0; 16];
        self.own.send(b"hello").is_ok()
            && self.bound.recv(&mut answer).is_ok_and(|length| &answer[..length] == b"hello")
    }

    fn files(&self, at: usize, place: &Path) -> io::Result<Value> {
        let whole = |file: &File| -> io::Result<String> {
            let mut content = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
            file.read_exact_at(&mut content, 0)?;
            Ok(String::from_utf8_lossy(&content).into_owned())
        };
        let closed = fs::metadata(place.join("closed"))?;
        let is_one = |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
        let second = fs::metadata(place.join("second"))?;
        let renamed = self.renamed[at].metadata()?;
        let mut names: Vec<String> = fs::read_dir(place)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        names.sort();
        Ok(json!({
            "place": place,
            "names": names,
            "closed": fs::read_to_string(place.join("closed"))?,
            "closedIs": [closed.mode(), closed.uid(), closed.gid()],
            "placeIs": [fs::metadata(place)?.mode(), fs::metadata(place)?.uid()],
            "deep": fs::read_to_string(place.join("folder/deep/file"))?,
            "open": whole(&self.open[at])?,
            "openByName": fs::read_to_string(place.join("open"))?,
            "renamed": whole(&self.renamed[at])?,
            "renamedIsSecond": is_one(&renamed, &second),
            "second": fs::read_to_string(place.join("second"))?,
            "nameless": whole(&self.nameless[at])?,
            "namelessLinks": self.nameless[at].metadata()?.nlink(),
        }))
    }

    fn add(&self, body: &[u8]) -> io::Result<()> {
        for files in [&self.open, &self.renamed, &self.nameless] {
            for mut file in files {
                file.write_all(body)?;
            }
        }
        Ok(())
    }
}

fn filled(path: &Path) -> io::Result<File> {
    let mut file = File::options().read(true).append(true).create_new(true).open(path)?;
    file.write_all(format!("{}:", path.display()).as_bytes())?;
    Ok(file)
}

fn address(address: IpAddr) -> String {
    address.to_string()
}

type Shared = Arc<Mutex<Held>>;

fn main() -> ExitCode {
    shadow::kit::start(None, until_stopped(run(Options::parse())))
}

/// Process 1 of a container gets SIGTERM only if it asks for it.
async fn until_stopped(work: impl Future<Output = Result<(), Box<dyn Error>>>) -> Result<(), Box<dyn Error>> {
    let shutdown = shadow::kit::Shutdown::on_signals_with_lag(Duration::ZERO)?;
    tokio::select! {
        ended = work => ended,
        () = shutdown.drain_started() => Ok(()),
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    if let Some(path) = &options.append {
        return Ok(File::options().append(true).create(true).open(path)?.write_all(b"once\n")?);
    }
    let held = Held::start(&options)?;
    let listener = held.listener.try_clone()?;
    let held = Arc::new(Mutex::new(held));
    std::thread::spawn({
        let held = Arc::clone(&held);
        move || greet(&listener, &held)
    });
    let router = Router::new()
        .route("/state", get(state))
        .route("/add", post(add))
        .route("/healthz", get(async || "ok"))
        .with_state(held);
    let listener = tokio::net::TcpListener::bind(&options.listen).await?;
    Ok(axum::serve(listener, router).await?)
}

fn greet(listener: &TcpListener, held: &Shared) {
    for stream in listener.incoming() {
        let length = held.lock().state().map_or(0, |state| state.to_string().len());
        // A reader that is gone has no use for it.
        let _ = stream.and_then(|mut stream| stream.write_all(length.to_string().as_bytes()));
    }
}

async fn state(State(held): State<Shared>) -> Result<Json<Value>, (StatusCode, String)> {
    held.lock().state().map(Json).map_err(internal)
}

async fn add(State(held): State<Shared>, body: Bytes) -> Result<(), (StatusCode, String)> {
    held.lock().add(&body).map_err(internal)
}

fn internal(error: io::Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
