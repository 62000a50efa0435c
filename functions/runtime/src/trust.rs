//! Whom this machine trusts: its certificate authorities, read once for all clients.
//!
//! Left to themselves, the AWS SDK and the registry's client each go through the system's folder of certificates, some
//! 300 files, which took two thirds of the time from a function's start to its first request for work.

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Where systems keep all certificates in one file: Amazon Linux and Fedora, Debian and Alpine, macOS and the BSDs.
const BUNDLES: [&str; 3] =
    ["/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"];

/// The certificate authorities of one file, in the forms that clients want.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    pem: Vec<u8>,
    roots: RootCertStore,
}

impl Trust {
    /// Those of this machine; `None` where there is no such file, where one of its certificates is not understood, or
    /// where the environment names others: clients then look for themselves.
    pub(crate) fn of_this_machine() -> Option<Self> {
        if gantry::config::names_certificates() {
            return None;
        }
        Self::of(BUNDLES.map(PathBuf::from).into_iter().find_map(|bundle| std::fs::read(bundle).ok())?)
    }

    fn of(pem: Vec<u8>) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.ok()?).ok()?;
        }
        (!roots.is_empty()).then_some(Self { pem, roots })
    }

    /// The file, as it is.
    pub(crate) fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// TLS with no other authorities, and no certificate of our own.
    pub(crate) fn client(self) -> ClientConfig {
        ClientConfig::builder().with_root_certificates(self.roots).with_no_client_auth()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_only_when_all_of_it_is_understood() {
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (what, pem) in [("nothing", b"".as_slice()), ("no PEM", b"hello"), ("no certificate", broken)] {
            assert!(Trust::of(pem.to_vec()).is_none(), "{what}");
        }
    }
}
