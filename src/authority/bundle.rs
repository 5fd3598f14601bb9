//! Roots in the forms that clients take: PEM, with the roots of the system where a program takes only one file, and a
//! trust store for Java.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, Tag, construct_der};

/// The password of a Java trust store. It protects nothing: the certificates are no secret.
pub const TRUST_STORE_PASSWORD: &str = "changeit";

/// A certificate in PEM.
pub fn pem(certificate: &[u8]) -> String {
    let body = STANDARD.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// The certificates in a PEM text.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// These certificates and the roots of the system, in one PEM text, for programs that trust one file and nothing else.
pub fn pem_with_system_roots(ours: &str) -> Result<String, String> {
    Ok(with_system_roots(ours)?.iter().map(|certificate| pem(certificate)).collect())
}

/// These certificates and the roots of the system as a trust store for Java (PKCS#12, [`TRUST_STORE_PASSWORD`]). The
/// entries are neither encrypted nor authenticated, which nobody asks of certificates.
pub fn java_trust_store(ours: &str) -> Result<Vec<u8>, String> {
    Ok(trust_store(&with_system_roots(ours)?))
}

/// Ours first, each once.
fn with_system_roots(ours: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let system = rustls_native_certs::load_native_certs();
    if system.certs.is_empty() {
        return Err("no root certificates on this machine; install the package `ca-certificates`".to_owned());
    }
    let mut seen = BTreeSet::new();
    let mut all = certificates(ours)?;
    all.extend(system.certs);
    all.retain(|certificate| seen.insert(certificate.to_vec()));
    Ok(all)
}

const DATA: &[u64] = &[1, 2, 840, 113549, 1, 7, 1];
const CERTIFICATE_BAG: &[u64] = &[1, 2, 840, 113549, 1, 12, 10, 1, 3];
const X509_CERTIFICATE: &[u64] = &[1, 2, 840, 113549, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u64] = &[1, 2, 840, 113549, 1, 9, 20];
/// Java takes certificates without it for parts of chains, and trusts none of them.
const TRUSTED_KEY_USAGE: &[u64] = &[2, 16, 840, 1, 113894, 746875, 1, 1];
const ANY_EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37, 0];

/// PKCS#12 (RFC 7292), in its plainest form.
fn trust_store(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    let bags = construct_der(|writer| {
        writer.write_sequence_of(|writer| {
            for (number, certificate) in certificates.iter().enumerate() {
                bag(writer.next(), &format!("sidekey-{number}"), certificate);
            }
        });
    });
    let contents = construct_der(|writer| writer.write_sequence_of(|writer| data(writer.next(), &bags)));
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_u8(3);
            data(writer.next(), &contents);
        });
    })
}

/// `ContentInfo` with plain bytes.
fn data(writer: DERWriter<'_>, bytes: &[u8]) {
    writer.write_sequence(|writer| {
        oid(writer.next(), DATA);
        writer.next().write_tagged(Tag::context(0), |writer| writer.write_bytes(bytes));
    });
}

fn bag(writer: DERWriter<'_>, name: &str, certificate: &[u8]) {
    writer.write_sequence(|writer| {
        oid(writer.next(), CERTIFICATE_BAG);
        writer.next().write_tagged(Tag::context(0), |writer| {
            writer.write_sequence(|writer| {
                oid(writer.next(), X509_CERTIFICATE);
                writer.next().write_tagged(Tag::context(0), |writer| writer.write_bytes(certificate));
            });
        });
        writer.next().write_set_of(|writer| {
            attribute(writer.next(), FRIENDLY_NAME, |value| value.write_bmp_string(name));
            attribute(writer.next(), TRUSTED_KEY_USAGE, |value| oid(value, ANY_EXTENDED_KEY_USAGE));
        });
    });
}

fn attribute(writer: DERWriter<'_>, kind: &[u64], value: impl FnOnce(DERWriter<'_>)) {
    writer.write_sequence(|writer| {
        oid(writer.next(), kind);
        writer.next().write_set_of(|writer| value(writer.next()));
    });
}

fn oid(writer: DERWriter<'_>, numbers: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(numbers));
}
