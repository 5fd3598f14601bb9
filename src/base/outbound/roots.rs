//! What the certificates of providers are judged by.

use std::sync::OnceLock;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Root certificates that rustls can work with.
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    store: RootCertStore,
    pem: OnceLock<String>,
}

/// The roots of the system; `SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded.
pub fn of_system() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// All certificates of a PEM file that are readable.
pub fn read(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).filter(|der| key_of(der).is_some()).collect()
}

impl Roots {
    /// All of `trusted` that can be read, but none whose key is that of one in `distrusted`.
    pub fn new<'a>(
        trusted: impl Iterator<Item = &'a CertificateDer<'static>>,
        distrusted: &[CertificateDer<'static>],
    ) -> Self {
        let refused: Vec<_> = distrusted.iter().filter_map(key_of).collect();
        let mut roots = Self { certificates: Vec::new(), store: RootCertStore::empty(), pem: OnceLock::new() };
        for certificate in trusted {
            let is_refused = key_of(certificate).is_none_or(|key| refused.contains(&key));
            if !is_refused && !roots.certificates.contains(certificate) && roots.store.add(certificate.clone()).is_ok()
            {
                roots.certificates.push(certificate.clone());
            }
        }
        roots
    }

    /// For rustls.
    pub fn store(&self) -> RootCertStore {
        self.store.clone()
    }

    /// All of them, one after the other.
    pub fn pem(&self) -> &str {
        self.pem.get_or_init(|| self.certificates.iter().map(pem_of).collect())
    }
}

/// The public key of a certificate that can be a root.
fn key_of(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let mut alone = RootCertStore::empty();
    alone.add(certificate.clone().into_owned()).ok()?;
    alone.roots.first().map(|anchor| anchor.subject_public_key_info.to_vec())
}

fn pem_of(certificate: &CertificateDer<'_>) -> String {
    let encoded = data_encoding::BASE64.encode(certificate);
    let lines: Vec<&str> = encoded.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (CertificateDer<'static>, String) {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
        (made.cert.der().clone(), made.cert.pem())
    }

    #[test]
    fn what_is_distrusted_counts_for_nothing_and_what_is_no_certificate_neither() {
        let ((good, _), (own, own_pem)) = (root(), root());
        let junk = CertificateDer::from(vec![1, 2, 3]);
        let all = [good.clone(), own, junk, good.clone()];
        assert_eq!(Roots::new(all.iter(), &[]).store().len(), 2);
        let roots = Roots::new(all.iter(), &read(own_pem.as_bytes()));
        assert_eq!(roots.store().len(), 1);
        assert_eq!(read(roots.pem().as_bytes()), [good]);
    }
}
