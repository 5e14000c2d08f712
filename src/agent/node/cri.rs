//! What the container engine knows of a container, asked over its own socket in the kubelet's language (CRI: gRPC). One
//! question, so the few fields are read by hand. Does I/O.
//!
//! Guarantees: ends within [`LIMIT`]; only reads.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::engine::Engine;
use super::host::Host;
use crate::api::ContainerRef;

const LIST: &str = "http://localhost/runtime.v1.RuntimeService/ListContainers";
const LIMIT: Duration = Duration::from_secs(5);
/// A pod has few containers, and some that ended.
const LONGEST_ANSWER: usize = 4 << 20;
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Marks a message that is not compressed.
const PLAIN: u8 = 0;

#[derive(Debug, thiserror::Error)]
pub enum CriError {
    #[error("container engine at {}: {source}", path.display())]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("container engine: {0}")]
    Http(#[from] h2::Error),
    #[error("container engine: no request: {0}")]
    Request(#[from] http::Error),
    #[error("container engine: HTTP {status}, gRPC status {code}: {message}")]
    Refused { status: http::StatusCode, code: String, message: String },
    #[error("container engine: its answer is not understood")]
    Malformed,
    #[error("container engine: no answer within {} s", LIMIT.as_secs())]
    TimedOut,
}

/// Digest of the image that the newest container of that name in that pod was made from; also of one whose start waits.
/// Nothing where the node has another engine, which is not asked. One that is being restarted is an error.
pub async fn image(host: &Host, engine: &Engine, of: &ContainerRef) -> Result<Option<String>, CriError> {
    let socket = host.path(&engine.socket);
    if socket.parent().is_some_and(|folder| !folder.exists()) {
        return Ok(None);
    }
    let labels = [(POD_UID, of.pod.uid.as_str()), (CONTAINER_NAME, of.container.as_str())];
    let answer =
        timeout(LIMIT, call(&socket, &list_request(&labels))).await.map_err(|_| CriError::TimedOut)??;
    newest_image(&answer).ok_or(CriError::Malformed)
}

/// One unary call.
async fn call(socket: &Path, message: &[u8]) -> Result<Bytes, CriError> {
    let unreachable = |source| CriError::Socket { path: socket.to_owned(), source };
    let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
    let (client, connection) = h2::client::handshake(stream).await?;
    let driven = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let mut client = client.ready().await?;
    let request = http::Request::post(LIST)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut sending) = client.send_request(request, false)?;
    sending.send_data(framed(message), true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut answer = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        if answer.len() + chunk.len() > LONGEST_ANSWER {
            return Err(CriError::Malformed);
        }
        answer.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    drop(driven);
    let told = |name: &str| {
        let value = trailers.get(name).or_else(|| head.headers.get(name));
        value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let code = told("grpc-status");
    if head.status != http::StatusCode::OK || code != "0" {
        return Err(CriError::Refused { status: head.status, code, message: told("grpc-message") });
    }
    unframed(answer.freeze()).ok_or(CriError::Malformed)
}

/// gRPC puts five bytes before each message.
fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(PLAIN);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

fn unframed(answer: Bytes) -> Option<Bytes> {
    let length = u32::from_be_bytes(answer.get(1..5)?.try_into().ok()?);
    (answer[0] == PLAIN && answer.len() - 5 == usize::try_from(length).ok()?).then(|| answer.slice(5..))
}

/// `ListContainersRequest { filter = 1: ContainerFilter { label_selector = 4: map } }`
fn list_request(labels: &[(&str, &str)]) -> Vec<u8> {
    let mut filter = Vec::new();
    for (key, value) in labels {
        let mut entry = Vec::new();
        put(&mut entry, 1, key.as_bytes());
        put(&mut entry, 2, value.as_bytes());
        put(&mut filter, 4, &entry);
    }
    let mut request = Vec::new();
    put(&mut request, 1, &filter);
    request
}

/// A field with a length.
fn put(to: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    to.push(field << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        to.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    to.push(u8::try_from(length).unwrap_or_default());
    to.extend_from_slice(bytes);
}

/// `ListContainersResponse { containers = 1: Container { image_ref = 5, created_at = 7, image_id = 10 } }`. The outer
/// nothing: not understood; the inner: no such container, or it says of no image.
#[expect(clippy::option_option, reason = "two ways of there being nothing")]
fn newest_image(response: &[u8]) -> Option<Option<String>> {
    let mut newest: Option<(u64, String)> = None;
    for container in fields(response) {
        let (1, Field::Bytes(container)) = container? else { continue };
        let (mut image, mut reference, mut created) = (String::new(), String::new(), 0);
        for field in fields(container) {
            match field? {
                (10, Field::Bytes(text)) => image = String::from_utf8_lossy(text).into_owned(),
                (5, Field::Bytes(text)) => reference = String::from_utf8_lossy(text).into_owned(),
                (7, Field::Number(at)) => created = at,
                _ => {}
            }
        }
        if image.is_empty() {
            image = reference;
        }
        if !image.is_empty() && newest.as_ref().is_none_or(|(at, _)| *at < created) {
            newest = Some((created, image));
        }
    }
    Some(newest.map(|(_, image)| image))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed width.
    Other,
}

/// Fields of a message with their numbers; `None` where it is broken, and then nothing more.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u64, Field<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let found = field(&mut rest);
        if found.is_none() {
            rest = &[];
        }
        Some(found)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let key = varint(rest)?;
    let value = match key & 7 {
        0 => Field::Number(varint(rest)?),
        1 => take(rest, 8).map(|_| Field::Other)?,
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Field::Bytes(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| Field::Other)?,
        _ => return None,
    };
    Some((key >> 3, value))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, image: &str, reference: &str, created: u8) -> Vec<u8> {
        let mut container = Vec::new();
        put(&mut container, 1, id.as_bytes());
        put(&mut container, 5, reference.as_bytes());
        container.extend([7 << 3, created]);
        if !image.is_empty() {
            put(&mut container, 10, image.as_bytes());
        }
        container
    }

    #[test]
    fn of_several_containers_the_newest_counts() {
        let mut response = Vec::new();
        put(&mut response, 1, &container("old", "sha256:a", "r@sha256:x", 5));
        put(&mut response, 1, &container("new", "sha256:b", "r@sha256:x", 9));
        assert_eq!(newest_image(&response), Some(Some("sha256:b".to_owned())));
        let mut plain = Vec::new();
        put(&mut plain, 1, &container("c", "", &"r".repeat(200), 1));
        assert_eq!(newest_image(&plain), Some(Some("r".repeat(200))), "an engine that knows references only");
        assert_eq!(newest_image(&[]), Some(None));
        for broken in 1..response.len() {
            let _ = newest_image(&response[..broken]); // says something, and ends
        }
        assert_eq!(newest_image(&response[..response.len() - 1]), None);
    }

    #[test]
    fn a_message_is_framed_and_read_back() {
        let request = list_request(&[("k", "v")]);
        assert_eq!(request, [0x0a, 8, 0x22, 6, 0x0a, 1, b'k', 0x12, 1, b'v']);
        assert_eq!(unframed(framed(&request)).as_deref(), Some(request.as_slice()));
        assert_eq!(
            (unframed(Bytes::from_static(b"\0\0")), unframed(Bytes::from_static(b"\0\0\0\0\x05x"))),
            (None, None)
        );
    }

    /// The wire as an engine speaks it.
    #[tokio::test]
    async fn an_engine_is_asked_over_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::at(dir.path());
        let engine = Engine { socket: "/run/k3s/containerd.sock".into(), ..Engine::default() };
        let socket = host.path(&engine.socket);
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(request) = connection.accept().await {
                let (_, mut respond) = request.unwrap();
                let mut response = Vec::new();
                put(&mut response, 1, &container("c", "sha256:b", "", 1));
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                body.send_data(framed(&response), false).unwrap();
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                body.send_trailers(trailers).unwrap();
            }
        });
        let pod = crate::api::PodIdentity { namespace: "n".into(), name: "p".into(), uid: "u".into() };
        let of = ContainerRef { pod, container: "app".into() };
        assert_eq!(image(&host, &engine, &of).await.unwrap().as_deref(), Some("sha256:b"));
        std::fs::remove_file(&socket).unwrap();
        let error = image(&host, &engine, &of).await.unwrap_err();
        assert!(error.to_string().contains("/run/k3s/containerd.sock"), "it is being restarted: {error}");
        let another = Host::at(Path::new("/nowhere"));
        assert!(matches!(image(&another, &engine, &of).await, Ok(None)), "the node has another engine");
    }
}
