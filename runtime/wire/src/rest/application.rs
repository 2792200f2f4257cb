//! The reverse proxy to the application behind a UNIX socket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::grpc::budget::Reservation;
use crate::grpc::status::{Code, Status};
use crate::rest::{Reply, status};
use crate::rope::Rope;
use crate::server::connection::{Error, Peer};

/// The maximum number of requests in flight to the application, which has a few more threads; others wait here.
const MAX_IN_FLIGHT: usize = 16;

/// Health checks need no permit: they must not wait for inference.
const HEALTH_PATHS: &str = "/v2/health/";

/// A connection that has been idle for this long is not reused; the application closes it after twice this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Hop-by-hop headers (RFC 9110, section 7.6.1), and those that the proxy sets itself.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

/// An application that speaks HTTP/1.1; clones share its connections.
#[derive(Clone)]
pub struct Application {
    socket: PathBuf,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Application {
    /// Creates a proxy to the application that listens on a socket.
    pub fn new(socket: PathBuf) -> Application {
        Application { socket, permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT)), idle: Arc::default() }
    }

    /// Forwards a request to the application, without hop-by-hop headers.
    ///
    /// Both bodies are buffered, so that a slow client occupies neither a connection to the application nor its thread.
    pub async fn answer(&self, parts: Parts, (body, reservation): (Rope, Reservation), peer: &Peer) -> Reply {
        match self.forward(request(parts, body, peer), reservation).await {
            Ok(reply) => reply,
            Err(_) => {
                let message = "the server cannot process this request now; try again later";
                status::refuse(&Status::new(Code::Unavailable, message))
            }
        }
    }

    /// A request can be cancelled while it waits for a permit, but not once it is forwarded. The permit is released
    /// when the application has responded.
    async fn forward(&self, request: Request<Full<Bytes>>, reservation: Reservation) -> Result<Reply, Error> {
        let permit = self.permit(&request).await?;
        let application = self.clone();
        let answered = tokio::spawn(async move {
            let answer = application.exchange(request).await;
            drop((permit, reservation));
            answer
        });
        answered.await?
    }

    async fn permit(&self, request: &Request<Full<Bytes>>) -> Result<Option<OwnedSemaphorePermit>, Error> {
        if request.uri().path().starts_with(HEALTH_PATHS) {
            return Ok(None);
        }
        Ok(Some(self.permits.clone().acquire_owned().await?))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, Error> {
        let is_head = request.method() == Method::HEAD;
        let mut connection = self.connect().await?;
        let (mut parts, body) = connection.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        connection.since = Instant::now();
        self.idle().push(connection);
        remove_hop_by_hop(&mut parts.headers);
        if !is_head {
            parts.headers.remove(CONTENT_LENGTH);
        }
        Ok(Reply::from_parts(parts, body))
    }

    async fn connect(&self) -> Result<Connection, Error> {
        while let Some(mut connection) = self.take() {
            if connection.since.elapsed() < IDLE_TIMEOUT && connection.sender.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = UnixStream::connect(&self.socket).await?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        // Its error is also returned by the request on this connection.
        tokio::spawn(async move { drop(driver.await) });
        Ok(Connection { sender, since: Instant::now() })
    }

    fn take(&self) -> Option<Connection> {
        self.idle().pop()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Converts a request to the form that the application receives.
fn request(mut parts: Parts, body: Rope, peer: &Peer) -> Request<Full<Bytes>> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    parts.version = Version::HTTP_11;
    remove_hop_by_hop(&mut parts.headers);
    parts.headers.remove(CONTENT_LENGTH);
    // Forwarding headers of clients are not trusted.
    let from_proxies = |name: &HeaderName| *name == FORWARDED || name.as_str().starts_with("x-forwarded-");
    let said: Vec<HeaderName> = parts.headers.keys().filter(|name| from_proxies(name)).cloned().collect();
    said.iter().for_each(|name| drop(parts.headers.remove(name)));
    parts.headers.insert(FORWARDED, forwarded(peer));
    parts.headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
    Request::from_parts(parts, body.into_bytes().into())
}

/// Removes the hop-by-hop headers, including those named by `Connection`.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    HOP_BY_HOP.iter().chain(&named).for_each(|name| drop(headers.remove(name)));
}

/// Converts a peer from gRPC's notation to that of RFC 7239, section 6.
fn forwarded(peer: &Peer) -> HeaderValue {
    let (_, address) = peer.name.split_once(':').unwrap_or_default();
    let address = address.replace("%5B", "[").replace("%5D", "]");
    HeaderValue::try_from(format!("for=\"{address}\"")).expect("an address is a valid header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(headers: &[(&'static str, &'static str)], peer: &str) -> HeaderMap {
        let mut given = http::Request::post("http://host/path?query=1").body(()).unwrap().into_parts().0;
        given.headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let peer = Peer::named(peer.to_owned());
        let request = request(given, Rope::default(), &peer);
        assert_eq!(request.uri(), "/path?query=1");
        request.headers().clone()
    }

    #[test]
    fn nobody_else_says_who_asks() {
        let liar =
            [("forwarded", "for=10.0.0.1"), ("x-forwarded-for", "10.0.0.1"), ("x-forwarded-host", "a")];
        let headers = sent(&liar, "ipv4:127.0.0.1:80");
        assert_eq!(headers[FORWARDED], "for=\"127.0.0.1:80\"");
        assert_eq!(headers.get_all(FORWARDED).iter().count(), 1);
        assert!(!headers.contains_key("x-forwarded-for") && !headers.contains_key("x-forwarded-host"));
        assert_eq!(sent(&[], "ipv6:%5B::1%5D:80")[FORWARDED], "for=\"[::1]:80\"");
    }

    #[test]
    fn what_is_said_of_a_connection_stays_with_it() {
        let headers = sent(
            &[
                ("connection", "close, x-hop"),
                ("x-hop", "1"),
                ("transfer-encoding", "chunked"),
                ("x-kept", "1"),
            ],
            "ipv4:127.0.0.1:80",
        );
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["forwarded", "host", "x-kept"]);
    }
}
