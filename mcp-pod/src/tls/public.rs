//! The public names that the gateway serves, and the certificate of each, from a directory that the kubelet updates.
//!
//! Which names there are is part of the policy. A certificate is served for a name only after the same check that the
//! operator makes ([`mcp_fleet_certificate`]); one that fails it changes nothing. So while the platform team changes to
//! another name, the former one keeps the certificate that it had, until that ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use mcp_fleet_certificate::{Checked, Refusal, check};
use parking_lot::Mutex;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::Identity;
use super::identity::versioned;

/// The certificate of each public name that is served.
pub type Served = BTreeMap<String, Checked>;

/// The public names of a gateway.
#[derive(Debug)]
pub struct PublicNames {
    dir: PathBuf,
    served: ArcSwap<Served>,
    /// Locked while `served` is replaced.
    wanted: Mutex<Wanted>,
}

/// The names of the policy in force, in lower case.
#[derive(Debug, Default)]
struct Wanted {
    names: Vec<String>,
    /// What was logged last, by name, so that it is logged once.
    logged: BTreeMap<String, String>,
    /// Validity of the certificate that is, or was last served for each name, so that an end that has passed can be seen.
    validity: BTreeMap<String, Validity>,
}

/// Begin and end of a certificate, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

impl PublicNames {
    /// Returns an empty set of names, whose certificates will be in `dir`: `tls.crt` and `tls.key`. The directory may be
    /// missing.
    pub fn new(dir: &Path) -> Arc<Self> {
        Arc::new(Self { dir: dir.to_owned(), served: ArcSwap::default(), wanted: Mutex::default() })
    }

    /// Sets the names that are to be served.
    pub(crate) fn set_names(&self, names: Vec<String>) {
        let mut wanted = self.wanted.lock();
        if wanted.names != names {
            wanted.names = names;
            self.update(&mut wanted, now());
        }
    }

    /// Reads the files again.
    pub fn reload(&self) {
        let mut wanted = self.wanted.lock();
        if !wanted.names.is_empty() {
            self.update(&mut wanted, now());
        }
    }

    /// Reads the files again at an interval, forever.
    pub async fn follow(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.reload();
        }
    }

    /// Returns the names that are served now.
    pub(crate) fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// Returns the validity of the certificate of each name of the policy that is served, or was until it ended.
    pub(crate) fn validity(&self) -> BTreeMap<String, Validity> {
        self.wanted.lock().validity.clone()
    }

    fn update(&self, wanted: &mut Wanted, now: i64) {
        let files = read(&self.dir);
        let before = self.served.load_full();
        let (mut served, mut problems) = (Served::new(), BTreeMap::new());
        for name in &wanted.names {
            let checked = match &files {
                Ok((chain, key)) => check(chain, key, name, now).map_err(Problem::Refused),
                Err(problem) => Err(problem.clone()),
            };
            let kept = checked.or_else(|problem| {
                problems.insert(name.clone(), problem.to_string());
                before.get(name).filter(|kept| kept.is_valid_at(now)).cloned().ok_or(())
            });
            if let Ok(checked) = kept {
                served.insert(name.clone(), checked);
            }
        }
        for (name, problem) in problems.iter().filter(|(name, problem)| wanted.logged.get(*name) != Some(*problem)) {
            let is_served = served.contains_key(name);
            warn!(name, problem, is_served, "the mounted certificate is not used for a public name");
        }
        wanted.logged = problems;
        let of = |checked: &Checked| Validity { not_before: checked.not_before, not_after: checked.not_after };
        wanted.validity.extend(served.iter().map(|(name, checked)| (name.clone(), of(checked))));
        wanted.validity.retain(|name, _| wanted.names.contains(name));
        if !is_equal(&before, &served) {
            info!(names = ?served.keys(), "serving public names");
            self.served.store(Arc::new(served));
        }
    }
}

/// Whether the same certificates are served.
fn is_equal(before: &Served, after: &Served) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|(a, b)| a.0 == b.0 && a.1.fingerprint == b.1.fingerprint)
}

/// Why the files are not used for a name.
#[derive(Clone, Debug, thiserror::Error)]
enum Problem {
    #[error("there is none")]
    Missing,
    #[error("it cannot be read: {0}")]
    Read(String),
    #[error(transparent)]
    Refused(Refusal),
}

/// Reads the chain and the key from one version of the Secret.
fn read(dir: &Path) -> Result<(Vec<u8>, Vec<u8>), Problem> {
    let dir = versioned(dir);
    let file = |name: &str| {
        std::fs::read(dir.join(name)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Problem::Missing,
            _ => Problem::Read(error.to_string()),
        })
    };
    Ok((file("tls.crt")?, file("tls.key")?))
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Chooses the certificate by the name that a client asks for: that of a public name, and the fleet's for every other name
/// and for none.
#[derive(Debug)]
pub(super) struct BySni {
    pub(super) fleet: Arc<Identity>,
    pub(super) public: Arc<PublicNames>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Host names are compared without regard to case (RFC 6066, section 3).
        let public = hello.server_name().and_then(|name| {
            let served = self.public.served.load();
            served.get(&name.to_ascii_lowercase()).map(|checked| Arc::clone(&checked.key))
        });
        public.or_else(|| self.fleet.resolve(hello))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_known_after_it_has_passed() {
        let (dir, name) = (tempfile::tempdir().unwrap(), "mcp.example.com".to_owned());
        let pair = rcgen::generate_simple_self_signed([name.clone()]).unwrap();
        std::fs::write(dir.path().join("tls.crt"), pair.cert.pem()).unwrap();
        std::fs::write(dir.path().join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        let names = PublicNames::new(dir.path());
        names.set_names(vec![name.clone(), "other.example.com".to_owned()]);
        let validity = names.validity();
        assert_eq!(validity.keys().collect::<Vec<_>>(), [&name], "the other was never served");
        names.update(&mut names.wanted.lock(), validity[&name].not_after + 1);
        assert!(names.served().is_empty());
        assert_eq!(names.validity(), validity);
        names.set_names(vec![]);
        assert!(names.validity().is_empty());
    }
}
