//! Certificates of one CA, as files like those of mounted Secrets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose as Eku, IsCa, KeyPair, SanType,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{NAME, gateway_identity, server_identity};

/// Folders with `tls.crt`, `tls.key` and `ca.crt`.
#[derive(Debug)]
pub(crate) struct Pki {
    /// Folder of the gateway, the pass-through proxy and the operator.
    pub(crate) gateway: PathBuf,
    /// Folder of the upstream.
    pub(crate) upstream: PathBuf,
}

impl Pki {
    /// Generates the certificates in folders inside `below`.
    pub(crate) fn create(below: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let pki = Self { gateway: below.join("gateway-tls"), upstream: below.join("upstream-tls") };
        write(&pki.gateway, &ca, &gateway_identity(), &[Eku::ServerAuth, Eku::ClientAuth])?;
        write(&pki.upstream, &ca, &server_identity(), &[Eku::ServerAuth])?;
        Ok(pki)
    }
}

fn write(dir: &Path, ca: &CertifiedIssuer<'static, KeyPair>, uri: &str, usages: &[Eku]) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut params = CertificateParams::new(vec![NAME.to_owned()])?;
    params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    params.extended_key_usages = usages.to_vec();
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    std::fs::write(dir.join("tls.crt"), certificate.pem())?;
    std::fs::write(dir.join("tls.key"), key.serialize_pem())?;
    std::fs::write(dir.join("ca.crt"), ca.pem())?;
    Ok(())
}

/// Returns the TLS configuration of an agent, which trusts the CA in `dir`.
pub(crate) fn client_tls(dir: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(dir.join("ca.crt")).context("failed to read the CA")? {
        roots.add(certificate.context("failed to read the CA")?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
