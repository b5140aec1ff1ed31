//! Whose certificate a caller has shown: the names in it, which its authority vouches for.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Further names of a certificate are not looked at.
const MOST: usize = 64;
/// What the common name of a subject begins with here, so that it is taken for no other kind of name.
const COMMON_NAME: &str = "CN=";

/// The names in a certificate that leads to a root of ours.
///
/// They are those of its subject alternative name (RFC 5280, section 4.2.1.6): URIs as they stand
/// there (a SPIFFE id is one), DNS names in lower case, and addresses of mail; and the common name of
/// its subject, as `CN=`. None of the former passes for one of the latter: one that begins so is left
/// out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownNames(Box<[Box<str>]>);

impl ShownNames {
    /// Those in this certificate; none in one that cannot be read.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self(Box::default());
        };
        let others = certificate.subject_alternative_name().ok().flatten();
        let others = others.iter().flat_map(|others| &others.value.general_names);
        let others = others.filter_map(|name| match name {
            GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                (!name.starts_with(COMMON_NAME)).then(|| (*name).into())
            }
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
            _ => None,
        });
        let common = certificate.subject().iter_common_name();
        let common = common.filter_map(|name| name.as_str().ok());
        let common = common.map(|name| format!("{COMMON_NAME}{name}").into());
        Self(common.chain(others).take(MOST).collect())
    }

    /// These names.
    #[cfg(test)]
    pub(crate) fn these(names: &[&str]) -> Self {
        Self(names.iter().map(|name| (*name).into()).collect())
    }

    /// The names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, string::Ia5String};

    use super::*;

    fn certificate(common: &str, others: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = others;
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    fn text(text: &str) -> Ia5String {
        text.try_into().expect("ASCII")
    }

    #[test]
    fn names_of_each_kind_are_told_apart() {
        let shown = certificate(
            "batch",
            vec![
                SanType::URI(text("spiffe://prod/ns/search/sa/App")),
                SanType::DnsName(text("Search.prod.svc")),
                SanType::Rfc822Name(text("search@example.com")),
                SanType::IpAddress([10, 0, 0, 1].into()),
            ],
        );
        let names = ShownNames::of(&shown);
        assert_eq!(
            names.iter().collect::<Vec<_>>(),
            ["CN=batch", "spiffe://prod/ns/search/sa/App", "search.prod.svc", "search@example.com"]
        );
    }

    #[test]
    fn a_common_name_is_never_taken_for_another_kind_and_no_list_is_endless() {
        let many = (0..1000).map(|n| SanType::DnsName(text(&format!("a{n}")))).collect();
        let names = ShownNames::of(&certificate("spiffe://prod/ns/a", many));
        assert!(names.iter().all(|name| name != "spiffe://prod/ns/a"));
        assert_eq!(names.iter().count(), MOST);
        let others = ["CN=batch", "cn=batch"].map(|name| SanType::URI(text(name)));
        let mail = SanType::Rfc822Name(text("CN=batch"));
        let dns = SanType::DnsName(text("CN=batch"));
        let names =
            ShownNames::of(&certificate("a", others.into_iter().chain([mail, dns]).collect()));
        assert!(names.iter().all(|name| name != "CN=batch"), "{names:?}");
        assert_eq!(ShownNames::of(&CertificateDer::from(vec![1, 2, 3])).iter().count(), 0);
    }
}
