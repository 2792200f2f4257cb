//! Addresses and sockets.

use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::server::connection::{IncomingConnection, Stream};

/// An address to listen on, in gRPC's notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`, `[::]:port`.
    Tcp(SocketAddr),
    /// `unix:path` or `unix:///path`.
    Unix(PathBuf),
    /// `unix-abstract:name`.
    Abstract(String),
}

impl Address {
    /// Parses an address; resolves host names.
    pub fn parse(text: &str) -> Result<Address> {
        if let Some(name) = text.strip_prefix("unix-abstract:") {
            return Ok(Address::Abstract(name.to_owned()));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Address::Unix(path.strip_prefix("//").unwrap_or(path).into()));
        }
        let unknown = |error: Error| {
            let message = format!(
                "cannot listen on {text:?}: {error}; expected host:port, [ipv6]:port, unix:path or unix-abstract:name"
            );
            Error::new(ErrorKind::InvalidInput, message)
        };
        let mut addresses = text.to_socket_addrs().map_err(unknown)?;
        addresses.next().map(Address::Tcp).ok_or_else(|| unknown(ErrorKind::AddrNotAvailable.into()))
    }
}

/// A bound socket.
pub enum Listener {
    /// TCP over IPv4, IPv6 or both.
    Tcp(std::net::TcpListener),
    /// A UNIX socket, and the guard that removes its file.
    Unix(StdUnixListener, Option<RemoveFile>),
}

/// Removes a socket's file on drop.
pub struct RemoveFile(PathBuf);

impl Drop for RemoveFile {
    fn drop(&mut self) {
        // Another process may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds an address and listens.
    pub fn bind(address: &Address, reuse_port: bool) -> Result<Listener> {
        let socket = |domain| Socket::new(domain, Type::STREAM.nonblocking(), None);
        match address {
            Address::Tcp(address) => {
                let socket = Socket::new(
                    Domain::for_address(*address),
                    Type::STREAM.nonblocking(),
                    Some(Protocol::TCP),
                )?;
                if address.is_ipv6() {
                    socket.set_only_v6(false)?;
                }
                // A port with connections in TIME_WAIT can be bound again; one that is in use cannot.
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(reuse_port)?;
                socket.bind(&SockAddr::from(*address))?;
                socket.listen(BACKLOG)?;
                Ok(Listener::Tcp(socket.into()))
            }
            Address::Unix(path) => {
                remove_stale(path);
                let socket = socket(Domain::UNIX)?;
                socket.bind(&SockAddr::unix(path)?)?;
                socket.listen(BACKLOG)?;
                Ok(Listener::Unix(socket.into(), Some(RemoveFile(path.clone()))))
            }
            Address::Abstract(name) => {
                let socket = socket(Domain::UNIX)?;
                socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
                socket.listen(BACKLOG)?;
                Ok(Listener::Unix(socket.into(), None))
            }
        }
    }

    /// The port; 1 for a UNIX socket, as in gRPC.
    pub fn port(&self) -> u16 {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map_or(0, |address| address.port()),
            Listener::Unix(..) => 1,
        }
    }

    /// Registers the listener with the event loop of this thread.
    pub fn into_async(self) -> Result<AsyncListener> {
        Ok(match self {
            Listener::Tcp(listener) => AsyncListener::Tcp(TcpListener::from_std(listener)?),
            Listener::Unix(listener, file) => AsyncListener::Unix(UnixListener::from_std(listener)?, file),
        })
    }
}

/// The maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// Removes the file of a socket that no process listens on.
fn remove_stale(path: &std::path::Path) {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        // If it cannot be removed, bind fails.
        let _ = std::fs::remove_file(path);
    }
}

/// A listener on an event loop.
pub enum AsyncListener {
    /// TCP.
    Tcp(TcpListener),
    /// A UNIX socket.
    Unix(UnixListener, #[allow(dead_code, reason = "it is there to be dropped")] Option<RemoveFile>),
}

impl AsyncListener {
    /// Accepts the next connection, which is not registered with this event loop.
    pub async fn accept(&self) -> Result<IncomingConnection> {
        Ok(match self {
            AsyncListener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // This fails only for a disconnected client, which the first read detects.
                let _ = stream.set_nodelay(true);
                IncomingConnection { stream: Stream::Tcp(stream.into_std()?), peer: name(address) }
            }
            AsyncListener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                IncomingConnection { stream: Stream::Unix(stream.into_std()?), peer: "unix:".to_owned() }
            }
        })
    }
}

/// Formats a peer as gRPC does: `ipv4:127.0.0.1:80`, `ipv6:%5B::1%5D:80`.
fn name(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => format!("ipv4:{address}"),
        SocketAddr::V6(address) => match address.ip().to_ipv4_mapped() {
            Some(ip) => format!("ipv4:{ip}:{}", address.port()),
            None => format!("ipv6:%5B{}%5D:{}", address.ip(), address.port()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        assert_eq!(Address::parse("127.0.0.1:80").unwrap(), Address::Tcp(([127, 0, 0, 1], 80).into()));
        assert_eq!(Address::parse("[::1]:80").unwrap(), Address::Tcp("[::1]:80".parse().unwrap()));
        assert_eq!(Address::parse("unix:/tmp/a").unwrap(), Address::Unix("/tmp/a".into()));
        assert_eq!(Address::parse("unix:///tmp/a").unwrap(), Address::Unix("/tmp/a".into()));
        assert_eq!(Address::parse("unix-abstract:a").unwrap(), Address::Abstract("a".into()));
        assert!(Address::parse("no port").unwrap_err().to_string().contains("host:port"));
    }

    #[test]
    fn peers_are_named_as_grpc_does() {
        assert_eq!(name("127.0.0.1:1".parse().unwrap()), "ipv4:127.0.0.1:1");
        assert_eq!(name("[::ffff:127.0.0.1]:1".parse().unwrap()), "ipv4:127.0.0.1:1");
        assert_eq!(name("[::1]:1".parse().unwrap()), "ipv6:%5B::1%5D:1");
    }
}
