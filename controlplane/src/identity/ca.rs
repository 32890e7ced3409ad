//! The CA of the fleet: made once per store, and what it signs and recognises.
//!
//! Its key is in the store, sealed. All certificates are ECDSA P-256: of nodes for
//! client authentication only, of listeners for server authentication only, so that
//! neither can stand for the other.

use std::{net::IpAddr, time::Duration};

use fleet_proto::hash::Hash;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::IdentityError;
use crate::{
    clock::now_ms,
    store::{Store, identity::CaRow},
    vault::Vault,
};

/// How long the CA is good.
const CA_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// Certificates are good from so long before they are made: clocks differ.
const EARLIER: Duration = Duration::from_secs(300);
/// What the subject alternative name of a node's certificate begins with.
const NODE_URI: &str = "mcp-fleet://node/";
/// An uncompressed point of P-256 (SEC 1, 2.3.3).
const POINT: usize = 65;

/// The CA.
pub(crate) struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate that has been made for a node.
pub(crate) struct Issued {
    pub(crate) der: Vec<u8>,
    /// Hex.
    pub(crate) serial: String,
    pub(crate) issued_ms: u64,
    pub(crate) expires_ms: u64,
}

/// A certificate of a node that the CA has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Hex.
    pub(crate) serial: String,
    pub(crate) node_id: String,
}

impl Ca {
    /// The CA of a store, made if there is none.
    pub(crate) async fn open(store: &dyn Store, vault: &Vault) -> Result<Self, IdentityError> {
        let kept = match store.ca().await? {
            Some(kept) => kept,
            // Of control planes that start at once, one makes it.
            None => store.add_ca(make(vault)?).await?,
        };
        let certificate = CertificateDer::from(kept.certificate);
        let digest = fingerprint(&certificate);
        let key = vault.open(&about(&digest), &kept.private_key)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(key.as_slice()),
            &PKCS_ECDSA_P256_SHA256,
        )?;
        if let Some(renewed) = vault.renew(&about(&digest), &kept.private_key)? {
            store.reseal_ca(kept.private_key, renewed).await?;
        }
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            certificate,
        })
    }

    /// Its certificate, DER.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of its certificate.
    pub(crate) fn fingerprint(&self) -> Hash {
        Hash::of(&self.certificate)
    }

    /// What recognises the certificates it has signed.
    pub(crate) fn roots(&self) -> Result<RootCertStore, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(roots)
    }

    /// A certificate for a node, for the public key of a request.
    pub(crate) fn sign_node(
        &self,
        node_id: &str,
        csr: &[u8],
        lifetime: Duration,
    ) -> Result<Issued, IdentityError> {
        let csr = CertificateSigningRequestParams::from_der(&csr.into())
            .map_err(|error| IdentityError::Csr(error.to_string()))?;
        let key = csr.public_key;
        if *key.algorithm() != PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != POINT {
            return Err(IdentityError::Csr("its key is not ECDSA P-256".to_owned()));
        }
        let mut params = params(node_id, lifetime)?;
        let uri = format!("{NODE_URI}{node_id}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let serial = params.serial_number.as_ref();
        let serial = serial.map(|serial| hex::encode(serial.as_ref()));
        Ok(Issued {
            // In seconds, as the certificate has it.
            expires_ms: params.not_after.unix_timestamp() as u64 * 1000,
            issued_ms: now_ms(),
            serial: serial.unwrap_or_default(),
            der: params.signed_by(&key, &self.issuer)?.der().to_vec(),
        })
    }

    /// A certificate with a new key for a listener that is called by these names,
    /// with the CA's own after it.
    pub(crate) fn sign_server(
        &self,
        names: &[String],
        lifetime: Duration,
    ) -> Result<CertifiedKey, IdentityError> {
        let mut params = params(names.first().map_or("", String::as_str), lifetime)?;
        for name in names {
            let name = match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            };
            params.subject_alt_names.push(name);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Ok(CertifiedKey::from_der(chain, key, &provider)?)
    }

    /// Recognises a node's certificate as one that this CA has signed and that was
    /// good at this time. Says nothing about revocation.
    pub(crate) fn recognise(&self, der: &[u8], at_ms: u64) -> Result<Shown, IdentityError> {
        let der = CertificateDer::from(der);
        let certificate = EndEntityCert::try_from(&der)?;
        let anchor = anchor_from_trusted_cert(&self.certificate)?;
        certificate.verify_for_usage(
            &[webpki::aws_lc_rs::ECDSA_P256_SHA256],
            &[anchor],
            &[],
            UnixTime::since_unix_epoch(Duration::from_millis(at_ms)),
            KeyUsage::client_auth(),
            None,
            None,
        )?;
        shown(&certificate)
    }
}

/// What a certificate says of itself, whoever has signed it.
pub(crate) fn claimed(der: &[u8]) -> Result<Shown, IdentityError> {
    shown(&EndEntityCert::try_from(&CertificateDer::from(der))?)
}

/// Whether the key of a certificate has signed these bytes.
pub(crate) fn has_signed(der: &[u8], bytes: &[u8], signature: &[u8]) -> Result<(), IdentityError> {
    let der = CertificateDer::from(der);
    let certificate = EndEntityCert::try_from(&der)?;
    let algorithm = webpki::aws_lc_rs::ECDSA_P256_SHA256;
    Ok(certificate.verify_signature(algorithm, bytes, signature)?)
}

fn shown(certificate: &EndEntityCert<'_>) -> Result<Shown, IdentityError> {
    let mut names = certificate.valid_uri_names();
    match (names.next(), names.next()) {
        (Some(uri), None) => match uri.strip_prefix(NODE_URI) {
            Some(node_id) => Ok(Shown {
                serial: hex::encode(certificate.serial()),
                node_id: node_id.to_owned(),
            }),
            None => Err(IdentityError::NotOfANode),
        },
        _ => Err(IdentityError::NotOfANode),
    }
}

fn make(vault: &Vault) -> Result<CaRow, IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params("mcp-fleet CA", CA_LIFETIME)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    let plain = zeroize::Zeroizing::new(key.serialize_der());
    let private_key = vault.seal(&about(&fingerprint(certificate.der())), &plain)?;
    Ok(CaRow {
        certificate: certificate.der().to_vec(),
        private_key,
    })
}

/// What the key is sealed as: that of this certificate.
fn about(fingerprint: &str) -> [&str; 3] {
    ["ca", "private_key", fingerprint]
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(Hash::of(certificate).0)
}

/// What all certificates have in common.
fn params(name: &str, lifetime: Duration) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - EARLIER;
    params.not_after = now + lifetime;
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    // A longer one than X.520 allows is left out: names are looked for elsewhere.
    if (1..=64).contains(&name.len()) {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 126 random bits, positive and with no zero byte before them (RFC 5280, 4.1.2.2).
fn serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(IdentityError::Random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
