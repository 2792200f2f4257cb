//! TLS 1.2 and 1.3, with or without client certificates; certificates are reloaded when their files change.

use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::log::warn;

/// The source of keys and certificates.
#[derive(Clone, Debug)]
pub enum Source {
    /// PEM in memory.
    Memory(Vec<u8>),
    /// A PEM file, which is reloaded when it changes.
    File(PathBuf),
}

/// The credentials of a TLS port.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The server's private key.
    pub key: Source,
    /// The server's certificate chain.
    pub certificates: Source,
    /// Root certificates for verifying clients; None if clients need no certificate.
    pub client_roots: Option<Source>,
    /// Whether clients without a certificate are rejected.
    pub require_client_auth: bool,
}

/// The interval at which the modification times of the files are checked.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// Accepts TLS connections.
#[derive(Clone)]
pub struct Acceptor(Arc<Inner>);

struct Inner {
    credentials: Credentials,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    modified: Vec<Option<SystemTime>>,
    checked: Instant,
}

impl Acceptor {
    /// Reads the credentials; errors name the part that is not valid.
    pub fn new(credentials: Credentials) -> Result<Acceptor> {
        let modified = credentials.modified();
        let config = Arc::new(credentials.config()?);
        let current = Mutex::new(Current { config, modified, checked: Instant::now() });
        Ok(Acceptor(Arc::new(Inner { credentials, current })))
    }

    /// Returns the acceptor for a new connection. Once per interval, one connection waits while a blocking thread
    /// checks the files; meanwhile others use the configuration that was read last.
    pub async fn acceptor(&self) -> TlsAcceptor {
        if self.0.is_reload_due() {
            let inner = self.0.clone();
            // On an error (shutdown, or a panic, which has been reported), the last configuration is kept.
            let _ = spawn_blocking(move || inner.reload_if_modified()).await;
        }
        self.0.current().config.clone().into()
    }
}

impl Inner {
    /// Whether the files must be checked now; if so, the caller must check them.
    fn is_reload_due(&self) -> bool {
        let mut current = self.current();
        let due = current.checked.elapsed() >= RELOAD_INTERVAL;
        if due {
            current.checked = Instant::now();
        }
        due
    }

    fn reload_if_modified(&self) {
        let modified = self.credentials.modified();
        if modified == self.current().modified {
            return;
        }
        match self.credentials.config() {
            Ok(config) => {
                *self.current() = Current { config: Arc::new(config), modified, checked: Instant::now() }
            }
            // Files may be half-written at this moment; until they are complete, the old configuration is used.
            Err(error) => warn(&format!(
                "the changed certificates cannot be used, the previous ones stay valid: {error}"
            )),
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Credentials {
    fn config(&self) -> Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = read_certificates(&self.certificates, "certificate chain")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key.read()?)
            .map_err(|error| invalid("private key", &error.to_string()))?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid("TLS configuration", &error.to_string()))?;
        let builder = match &self.client_roots {
            None => builder.with_no_client_auth(),
            Some(source) => {
                let mut roots = RootCertStore::empty();
                for root in read_certificates(source, "root certificate")? {
                    roots.add(root).map_err(|error| invalid("root certificate", &error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier =
                    if self.require_client_auth { verifier } else { verifier.allow_unauthenticated() };
                let verifier =
                    verifier.build().map_err(|error| invalid("root certificate", &error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(|error| invalid("pair of private key and certificate", &error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(4096);
        Ok(config)
    }

    fn modified(&self) -> Vec<Option<SystemTime>> {
        let sources = [Some(&self.key), Some(&self.certificates), self.client_roots.as_ref()];
        let time = |source: &Source| match source {
            Source::Memory(_) => None,
            Source::File(path) => std::fs::metadata(path).and_then(|file| file.modified()).ok(),
        };
        sources.into_iter().flatten().map(time).collect()
    }
}

impl Source {
    fn read(&self) -> Result<Vec<u8>> {
        match self {
            Source::Memory(pem) => Ok(pem.clone()),
            Source::File(path) => std::fs::read(path).map_err(|error| {
                Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
            }),
        }
    }
}

fn read_certificates(source: &Source, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let pem = source.read()?;
    let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| invalid(what, &error.to_string()))?;
    if certificates.is_empty() {
        return Err(invalid(what, "there is no certificate in it"));
    }
    Ok(certificates)
}

fn invalid(what: &str, problem: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("the {what} cannot be used: {problem}; expected PEM"))
}

/// Returns the properties of a client's certificate, by gRPC's names.
pub fn identity(certificate: &CertificateDer<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let mut properties = vec![("x509_pem_cert", pem(certificate))];
    // A certificate that rustls has verified can be parsed; if not, it has no other properties.
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return properties };
    for name in parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok()) {
        properties.push(("x509_common_name", name.into()));
    }
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                    properties.push(("x509_subject_alternative_name", (*name).into()));
                }
                GeneralName::IPAddress(address) => {
                    let text = match **address {
                        [a, b, c, d] => std::net::Ipv4Addr::new(a, b, c, d).to_string(),
                        _ => match <[u8; 16]>::try_from(*address) {
                            Ok(address) => std::net::Ipv6Addr::from(address).to_string(),
                            Err(_) => continue,
                        },
                    };
                    properties.push(("x509_subject_alternative_name", text.into()));
                }
                _ => {}
            }
        }
    }
    properties
}

fn pem(certificate: &CertificateDer<'_>) -> Vec<u8> {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = b"-----BEGIN CERTIFICATE-----\n".to_vec();
    for line in text.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
    pem
}
