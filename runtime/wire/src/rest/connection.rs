//! HTTP/1 connections.

use std::pin::pin;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::rest::{Frontend, service};
use crate::server::Phase;
use crate::server::connection::{Error, Peer};
use crate::server::worker::WorkerContext;

/// Serves the requests of a connection one by one; once the server drains, the one in flight is the last.
pub async fn serve_http1<S>(
    worker: &Arc<WorkerContext>,
    stream: S,
    peer: Peer,
    frontend: &Arc<Frontend>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let peer = Arc::new(peer);
    let answer =
        service_fn(|request| service::serve(worker.clone(), frontend.clone(), peer.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // As in the documents of the protocols.
        .title_case_headers(true)
        // This also limits the idle time of a connection.
        .header_read_timeout(worker.shared.config.handshake_timeout)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    let mut phase = worker.shared.phase();
    tokio::select! {
        served = connection.as_mut() => return Ok(served?),
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => {}
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}
