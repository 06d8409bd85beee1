//! An authority made for one etcd, and the certificates that it gives out.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// PEM files: an authority, a server's certificate for 127.0.0.1, and one for clients.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The server's certificate and its key.
    pub server: (PathBuf, PathBuf),
    /// The clients' certificate and its key.
    pub client: (PathBuf, PathBuf),
}

impl Certificates {
    /// Makes them all anew, as files in `folder`.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn make(folder: &Path) -> Result<Self> {
        let mut parameters = named("carillon test authority", &[])?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?;
        let authority = folder.join("ca.pem");
        secret_file(&authority, &issuer.pem())?;

        let give_out = |name: &str| -> Result<(PathBuf, PathBuf)> {
            let mut parameters = named(name, &["127.0.0.1", "localhost"])?;
            // etcd's own gateway uses the server's certificate as a client.
            parameters.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate()?;
            let certificate = parameters.signed_by(&key, &issuer)?;
            let paths = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
            secret_file(&paths.0, &certificate.pem())?;
            secret_file(&paths.1, &key.serialize_pem())?;
            Ok(paths)
        };
        Ok(Self { server: give_out("etcd-server")?, client: give_out("etcd-client")?, authority })
    }
}

fn named(name: &str, hosts: &[&str]) -> Result<CertificateParams> {
    let hosts: Vec<String> = hosts.iter().copied().map(str::to_owned).collect();
    let mut parameters = CertificateParams::new(hosts)?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    Ok(parameters)
}

/// Writes a file that only its owner can read.
///
/// # Errors
///
/// When it cannot be written.
pub fn secret_file(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let mut file =
        options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
