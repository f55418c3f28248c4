//! The certificate, key and CA of this process, from a directory that the kubelet updates.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};

use super::TlsError;
use super::verify::only_uri;

/// Returns the crypto provider that the whole process shares.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// The content of the files when they were last valid.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) roots: Arc<RootCertStore>,
    ca_pem: Arc<[u8]>,
    cert_pem: Vec<u8>,
}

/// The certificate (`tls.crt`), key (`tls.key`) and CA (`ca.crt`) of this process, from one directory.
#[derive(Debug)]
pub struct Identity {
    dir: PathBuf,
    loaded: ArcSwap<Loaded>,
}

impl Identity {
    /// Loads the files of `dir`.
    pub fn load(dir: &Path) -> Result<Arc<Self>, TlsError> {
        let loaded = read(dir)?;
        Ok(Arc::new(Self { dir: dir.to_owned(), loaded: ArcSwap::from_pointee(loaded) }))
    }

    /// Loads the files again and returns whether certificate or CA have changed. On an error, the old files stay in use.
    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        let new = read(&self.dir)?;
        let old = self.loaded.load();
        if new.cert_pem == old.cert_pem && new.ca_pem == old.ca_pem {
            return Ok(false);
        }
        self.loaded.store(Arc::new(new));
        Ok(true)
    }

    /// Reloads the files at an interval, forever. The kubelet updates them with a delay of about a minute, so `every` need
    /// not be short.
    pub async fn follow(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.reload() {
                Ok(true) => info!(dir = %self.dir.display(), "reloaded the certificate"),
                Ok(false) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    warn!(dir = %self.dir.display(), error, "failed to reload the certificate; the old one stays in use");
                }
            }
        }
    }

    /// Returns the CA certificates as PEM.
    pub fn ca_pem(&self) -> Arc<[u8]> {
        Arc::clone(&self.loaded.load().ca_pem)
    }

    /// Returns the name of this process: the only URI SAN of its certificate. It does not change when the certificate is
    /// renewed.
    pub fn uri(&self) -> Result<String, TlsError> {
        let key = Arc::clone(&self.loaded.load().key);
        let leaf = key.end_entity_cert()?;
        let uri = x509_parser::parse_x509_certificate(leaf).ok().and_then(|(_, leaf)| {
            let uri = only_uri(&leaf).ok().flatten()?;
            Some(uri.to_owned())
        });
        uri.ok_or_else(|| TlsError::Parse {
            path: self.dir.join("tls.crt"),
            detail: "the certificate does not have exactly one URI".to_owned(),
        })
    }

    pub(super) fn current(&self) -> arc_swap::Guard<Arc<Loaded>> {
        self.loaded.load()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.loaded.load().key))
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.loaded.load().key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Reads the three files from one version of the Secret.
fn read(dir: &Path) -> Result<Loaded, TlsError> {
    let dir = versioned(dir);
    let file = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).map(|bytes| (path.clone(), bytes)).map_err(|source| TlsError::Read { path, source })
    };
    let (cert_path, cert_pem) = file("tls.crt")?;
    let (key_path, key_pem) = file("tls.key")?;
    let (ca_path, ca_pem) = file("ca.crt")?;

    let chain = certificates(&cert_path, &cert_pem)?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|error| TlsError::Parse { path: key_path, detail: error.to_string() })?;
    let mut roots = RootCertStore::empty();
    for ca in certificates(&ca_path, &ca_pem)? {
        roots.add(ca)?;
    }
    // from_der fails if the key does not belong to the certificate, so a half-written pair is never used.
    let key = CertifiedKey::from_der(chain, key, &provider())?;
    Ok(Loaded { key: Arc::new(key), roots: Arc::new(roots), ca_pem: ca_pem.into(), cert_pem })
}

/// Returns the directory of the newest version of a mounted Secret. The kubelet replaces the link `..data` atomically;
/// resolving it once makes sure that all files are of one version.
pub(super) fn versioned(dir: &Path) -> PathBuf {
    std::fs::canonicalize(dir.join("..data")).unwrap_or_else(|_| dir.to_owned())
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Parse { path: path.to_owned(), detail: error.to_string() })?;
    if certificates.is_empty() {
        return Err(TlsError::Parse { path: path.to_owned(), detail: "it contains no certificate".to_owned() });
    }
    Ok(certificates)
}
