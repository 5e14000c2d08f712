//! The servers over real TLS on loopback.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::{Extension, Router, routing::get};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::{Mutex, Notify, oneshot},
    time::timeout,
};

use super::{
    PeerName, Shutdown, peer_client, serve_tls,
    tls::{ClientAuth, Credentials, TlsStore},
};
use crate::operator::certificates::Authority;

const LIFE: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(10);

fn authority() -> Authority {
    Authority::found(SystemTime::now()).unwrap()
}

/// Credentials called `name` from `issuer`, trusting `trusted`.
fn credentials(issuer: &Authority, name: &str, trusted: &Authority) -> Credentials {
    let issued = issuer.issue(&[name.to_owned()], LIFE, SystemTime::now()).unwrap();
    let bundle = trusted.bundle();
    Credentials::from_pem(issued.certificate.as_bytes(), issued.key.as_bytes(), bundle.as_bytes()).unwrap()
}

struct Server {
    address: SocketAddr,
    tls: TlsStore,
    shutdown: Shutdown,
    /// Told when `/slow` has been asked.
    asked: Arc<Notify>,
    ended: oneshot::Receiver<()>,
}

impl Server {
    /// Called `server.test`; `/who` answers with the client's name, `/slow` when `release` is sent.
    async fn start(authority: &Authority, auth: ClientAuth) -> (Self, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = TlsStore::new(credentials(authority, "server.test", authority)).unwrap();
        let shutdown = Shutdown::with_lag(LIMIT);
        let (release, released) = oneshot::channel::<()>();
        let released = Arc::new(Mutex::new(Some(released)));
        let asked = Arc::new(Notify::new());
        let of_handler = Arc::clone(&asked);
        let slow = move || {
            let (released, asked) = (Arc::clone(&released), Arc::clone(&of_handler));
            async move {
                asked.notify_one();
                released.lock().await.take().unwrap().await.unwrap();
                "done"
            }
        };
        let who = async |Extension(PeerName(name)): Extension<PeerName>| format!("{name:?}");
        let router = Router::new().route("/who", get(who)).route("/slow", get(slow));
        let (end, ended) = oneshot::channel();
        let serving = serve_tls(listener, router, tls.clone(), auth, shutdown.clone());
        tokio::spawn(async move {
            serving.await.unwrap();
            let _ = end.send(());
        });
        (Self { address, tls, shutdown, asked, ended }, release)
    }

    async fn ask(&self, client: &TlsStore, name: &str, path: &str) -> reqwest::Result<reqwest::Response> {
        let client = peer_client(client, name, self.address).unwrap();
        let url = format!("https://{name}:{}{path}", self.address.port());
        client.get(url).timeout(LIMIT).send().await
    }
}

#[tokio::test]
async fn the_server_knows_its_client_by_the_name_in_the_certificate() {
    let authority = authority();
    let (server, _) = Server::start(&authority, ClientAuth::Required).await;
    let client = TlsStore::new(credentials(&authority, "n1.agent.shadow.internal", &authority)).unwrap();
    let answer = server.ask(&client, "server.test", "/who").await.unwrap().text().await.unwrap();
    assert_eq!(answer, r#"Some("n1.agent.shadow.internal")"#);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_and_so_is_a_server_of_one() {
    let (ours, theirs) = (authority(), authority());
    let (server, _) = Server::start(&ours, ClientAuth::Required).await;
    let stranger = TlsStore::new(credentials(&theirs, "n1.agent.shadow.internal", &ours)).unwrap();
    assert!(server.ask(&stranger, "server.test", "/who").await.is_err());
    let distrustful = TlsStore::new(credentials(&ours, "n1.agent.shadow.internal", &theirs)).unwrap();
    assert!(server.ask(&distrustful, "server.test", "/who").await.is_err());
}

#[tokio::test]
async fn nobody_gets_in_without_a_certificate_where_one_is_required() {
    let authority = authority();
    for (auth, expected) in [(ClientAuth::Required, None), (ClientAuth::Optional, Some("None"))] {
        let (server, _) = Server::start(&authority, auth).await;
        let roots = super::tls::root_store(authority.bundle().as_bytes()).unwrap();
        let anonymous = super::tls::anonymous_client_config(roots).unwrap();
        let client = super::peer::client(anonymous, |b| b.resolve("server.test", server.address)).unwrap();
        let url = format!("https://server.test:{}/who", server.address.port());
        let answer = match client.get(url).timeout(LIMIT).send().await {
            Ok(response) => response.text().await.ok(),
            Err(_) => None,
        };
        assert_eq!(answer.as_deref(), expected, "{auth:?}");
    }
}

#[tokio::test]
async fn renewed_credentials_are_shown_to_the_next_connection_without_a_restart() {
    let (before, after) = (authority(), authority());
    let (server, _) = Server::start(&before, ClientAuth::Required).await;
    let old = TlsStore::new(credentials(&before, "old.test", &before)).unwrap();
    assert!(server.ask(&old, "server.test", "/who").await.is_ok());

    server.tls.replace(credentials(&after, "renewed.test", &after)).unwrap();
    assert!(server.ask(&old, "server.test", "/who").await.is_err(), "the former authority is still believed");
    let new = TlsStore::new(credentials(&after, "new.test", &after)).unwrap();
    let answer = server.ask(&new, "renewed.test", "/who").await.unwrap().text().await.unwrap();
    assert_eq!(answer, r#"Some("new.test")"#);
}

#[tokio::test]
async fn a_client_made_before_a_renewal_shows_the_renewed_certificate() {
    let authority = authority();
    let (server, _) = Server::start(&authority, ClientAuth::Required).await;
    let store = TlsStore::new(credentials(&authority, "first.test", &authority)).unwrap();
    let client = peer_client(&store, "server.test", server.address).unwrap();
    store.replace(credentials(&authority, "second.test", &authority)).unwrap();
    let url = format!("https://server.test:{}/who", server.address.port());
    let answer = client.get(url).timeout(LIMIT).send().await.unwrap().text().await.unwrap();
    assert_eq!(answer, r#"Some("second.test")"#);
}

#[tokio::test]
async fn a_key_of_another_certificate_is_noticed_at_once() {
    let authority = authority();
    let issue = || authority.issue(&["a.test".to_owned()], LIFE, SystemTime::now()).unwrap();
    let (one, other) = (issue(), issue());
    assert!(Credentials::from_pem(one.certificate.as_bytes(), other.key.as_bytes(), b"").is_err());
}

#[tokio::test]
async fn whoever_does_not_finish_the_handshake_is_cut_off() {
    let authority = authority();
    let (server, _) = Server::start(&authority, ClientAuth::None).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let begun = Instant::now();
    let read = timeout(LIMIT, silent.read(&mut [0; 1])).await.expect("cut off");
    assert!(matches!(read, Ok(0) | Err(_)));
    assert!(begun.elapsed() >= Duration::from_millis(200), "cut off without any patience");
}

#[tokio::test]
async fn a_draining_server_accepts_and_a_stopped_one_finishes_what_runs() {
    let authority = authority();
    let (server, release) = Server::start(&authority, ClientAuth::Required).await;
    let client = TlsStore::new(credentials(&authority, "client.test", &authority)).unwrap();
    let http = peer_client(&client, "server.test", server.address).unwrap();
    let slow = format!("https://server.test:{}/slow", server.address.port());
    let running = tokio::spawn(http.get(slow).timeout(LIMIT).send());
    server.asked.notified().await;

    server.shutdown.begin();
    let during = server.ask(&client, "server.test", "/who").await.unwrap();
    assert_eq!(during.headers()["connection"], "close");

    server.shutdown.stop_now();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    assert_eq!(running.await.unwrap().unwrap().text().await.unwrap(), "done");
    timeout(LIMIT, server.ended).await.expect("the server ends").unwrap();
}
