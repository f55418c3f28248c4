//! Certificates of a cluster, signed by one CA that is generated for each cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

/// CA of a cluster, and the folder for its files.
pub struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    ca: String,
}

impl Pki {
    /// Generates a CA and writes `ca.crt` and `ca.key` into `folder`.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "mcp-fleet-cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let ca = params.self_signed(&key)?.pem();
        write_secret(&folder.join("ca.key"), &key.serialize_pem())?;
        fs::write(folder.join("ca.crt"), &ca)?;
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(params, key), ca })
    }

    /// Writes `<name>.crt` and `<name>.key` for a server at the host names and addresses in `hosts`.
    pub fn server(&self, name: &str, hosts: &[&str]) -> Result<()> {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.write(name, params).map(drop)
    }

    /// Writes `<name>.crt` and `<name>.key` for an API client that is `user` in `group`. Returns both as PEM.
    pub fn client(&self, name: &str, user: &str, group: &str) -> Result<(String, String)> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.write(name, params)
    }

    /// Writes a self-contained kubeconfig for `user` in `group`.
    pub fn kubeconfig(&self, file: &Path, server: &str, user: &str, group: &str) -> Result<()> {
        let name = file.file_stem().context("the path of the kubeconfig has no file name")?.to_string_lossy();
        let (certificate, key) = self.client(&name, user, group)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "mcp-fleet", "cluster": {"server": server, "certificate-authority-data": base64(&self.ca)}}],
            "users": [{"name": user, "user": {"client-certificate-data": base64(&certificate), "client-key-data": base64(&key)}}],
            "contexts": [{"name": "mcp-fleet", "context": {"cluster": "mcp-fleet", "user": user}}],
            "current-context": "mcp-fleet",
        });
        write_secret(file, &serde_json::to_string_pretty(&config)?)
    }

    /// Writes `sa.key` and `sa.pub`, which sign and verify the tokens of ServiceAccounts.
    pub fn service_accounts(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        write_secret(&self.folder.join("sa.key"), &key.serialize_pem())?;
        fs::write(self.folder.join("sa.pub"), key.public_key_pem())?;
        Ok(())
    }

    fn write(&self, name: &str, mut params: CertificateParams) -> Result<(String, String)> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        fs::write(self.folder.join(format!("{name}.crt")), &certificate)?;
        write_secret(&self.folder.join(format!("{name}.key")), &key)?;
        Ok((certificate, key))
    }
}

fn write_secret(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
