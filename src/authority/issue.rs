//! Makes certificates: a root, an intermediate below it, and leaves.
//!
//! Both authorities are constrained to the same names. A client checks the constraints of every certificate in the chain,
//! but some leave those of the root out, since they take only its name and key for granted: so the intermediate, which is
//! sent with each leaf, carries them again.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::names;
use crate::base::clock::Timestamp;
use crate::base::random::{self, Random};

/// How long a root and its intermediate live.
pub const AUTHORITY_LIFE: Duration = Duration::from_hours(10 * 365 * 24);
/// How long a leaf lives.
pub const LEAF_LIFE: Duration = Duration::from_hours(7 * 24);
/// Clients' clocks may be so far behind.
const AUTHORITY_BACKDATED: Duration = Duration::from_hours(24);
const LEAF_BACKDATED: Duration = Duration::from_hours(12);

/// A private key on P-256.
pub struct PrivateKey {
    pair: EcdsaKeyPair,
    document: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// A new one.
    pub fn generate() -> Result<Self, String> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        Self::from_pkcs8(document.map_err(|error| error.to_string())?.as_ref())
    }

    /// One in PKCS#8.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, String> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document, &SystemRandom::new());
        Ok(Self { pair: pair.map_err(|error| error.to_string())?, document: Zeroizing::new(document.to_vec()) })
    }

    /// In PKCS#8.
    pub fn as_pkcs8(&self) -> &[u8] {
        &self.document
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// What an authority consists of. The root's own key has signed once and is gone.
pub struct Made {
    /// What clients trust.
    pub root: CertificateDer<'static>,
    /// What signs leaves.
    pub intermediate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKey,
    /// When both end.
    pub not_after: Timestamp,
}

/// Makes an authority that may stand for `hosts` and nothing else.
pub fn authority(id: &str, hosts: &BTreeSet<String>, now: Timestamp, random: &dyn Random) -> Result<Made, String> {
    let (not_before, not_after) = (now.minus(AUTHORITY_BACKDATED), now.plus(AUTHORITY_LIFE));
    let constrained = |name: String, path_length: u8| -> Result<CertificateParams, String> {
        let mut wanted = certificate(&name, not_before, not_after, random)?;
        wanted.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
        wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        wanted.name_constraints = Some(constraints(hosts));
        Ok(wanted)
    };
    let root_key = PrivateKey::generate()?;
    let root = constrained(format!("Sidekey local root {id}"), 1)?;
    let root_certificate = root.self_signed(&root_key).map_err(|error| error.to_string())?;
    let key = PrivateKey::generate()?;
    let mut intermediate = constrained(intermediate_name(id), 0)?;
    intermediate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let signed = intermediate.signed_by(&key, &Issuer::from_params(&root, &root_key));
    let intermediate = signed.map_err(|error| error.to_string())?.der().clone();
    Ok(Made { root: root_certificate.der().clone(), intermediate, key, not_after })
}

/// Makes a leaf for `host` with the key `leaf`, signed by the intermediate of the authority `id`.
pub fn leaf(
    id: &str,
    signer: &PrivateKey,
    host: &str,
    leaf: &PrivateKey,
    life: (Timestamp, Timestamp),
    random: &dyn Random,
) -> Result<CertificateDer<'static>, String> {
    let (now, not_after) = life;
    let mut wanted = certificate("Sidekey", now.minus(LEAF_BACKDATED), not_after, random)?;
    wanted.is_ca = IsCa::ExplicitNoCa;
    wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    wanted.subject_alt_names =
        vec![SanType::DnsName(host.try_into().map_err(|error: rcgen::Error| error.to_string())?)];
    let mut intermediate = CertificateParams::default();
    intermediate.distinguished_name.push(DnType::CommonName, intermediate_name(id));
    intermediate.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let signed = wanted.signed_by(leaf, &Issuer::from_params(&intermediate, signer));
    Ok(signed.map_err(|error| error.to_string())?.der().clone())
}

fn intermediate_name(id: &str) -> String {
    format!("Sidekey local intermediate {id}")
}

/// What all have in common.
fn certificate(
    name: &str,
    not_before: Timestamp,
    not_after: Timestamp,
    random: &dyn Random,
) -> Result<CertificateParams, String> {
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name.push(DnType::CommonName, name);
    wanted.not_before = moment(not_before)?;
    wanted.not_after = moment(not_after)?;
    let mut serial: [u8; 16] = random::bytes(random);
    // Positive, and as long as all others.
    serial[0] = serial[0] & 0x3f | 0x40;
    wanted.serial_number = Some(SerialNumber::from_slice(&serial));
    wanted.use_authority_key_identifier_extension = true;
    Ok(wanted)
}

fn moment(timestamp: Timestamp) -> Result<OffsetDateTime, String> {
    OffsetDateTime::from_unix_timestamp(timestamp.as_seconds()).map_err(|error| error.to_string())
}

/// These names and those below them, and no address at all.
fn constraints(hosts: &BTreeSet<String>) -> NameConstraints {
    let permitted: BTreeSet<&str> = hosts.iter().map(|host| names::base(host)).collect();
    NameConstraints {
        permitted_subtrees: permitted.into_iter().map(|name| GeneralSubtree::DnsName(name.to_owned())).collect(),
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(Ipv4Addr::UNSPECIFIED.octets(), 0)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(Ipv6Addr::UNSPECIFIED.octets(), 0)),
        ],
    }
}
