//! The signature algorithms that an issuer's token may use (`docs/protocol.md` §2.2), and allow-lists of them.

use core::fmt;

/// A JWS signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1).
///
/// There is no `none`, no RSA encryption and no SHA-1 to choose by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519. Its name in a header is `EdDSA`, or `Ed25519` (RFC 9864).
    EdDsa,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// HMAC with SHA-256: whoever can verify can also sign, so never across an organisation.
    Hs256,
}

impl Algorithm {
    /// All of them, in the order of preference for a new deployment.
    pub const ALL: [Self; 6] = [
        Self::EdDsa,
        Self::Es256,
        Self::Es384,
        Self::Ps256,
        Self::Rs256,
        Self::Hs256,
    ];

    /// The name written into headers: the one of RFC 7518 or RFC 8037.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }

    /// The algorithm of that exact name; `Ed25519` is a second name of [`Algorithm::EdDsa`] (RFC 9864 §2.2).
    ///
    /// Names are case-sensitive (RFC 7515 §4.1.1), so every spelling of `none` is simply not a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            "ES256" => Some(Self::Es256),
            "ES384" => Some(Self::Es384),
            "PS256" => Some(Self::Ps256),
            "RS256" => Some(Self::Rs256),
            "HS256" => Some(Self::Hs256),
            _ => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The algorithms an operator allows for one issuer (RFC 8725 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithms(u8);

impl Algorithms {
    /// Everything with a public key: `EdDSA`, `ES256`, `ES384`, `PS256`, `RS256`.
    pub const PUBLIC_KEY: Self = Self::of(&[
        Algorithm::EdDsa,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Ps256,
        Algorithm::Rs256,
    ]);

    /// Exactly these.
    #[must_use]
    pub const fn of(list: &[Algorithm]) -> Self {
        let mut bits = 0;
        let mut rest = list;
        while let [first, tail @ ..] = rest {
            bits |= 1 << *first as u8;
            rest = tail;
        }
        Self(bits)
    }

    /// Whether `algorithm` is allowed.
    #[must_use]
    pub const fn allows(self, algorithm: Algorithm) -> bool {
        self.0 & (1 << algorithm as u8) != 0
    }

    /// Those allowed, in the order of [`Algorithm::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL.into_iter().filter(move |a| self.allows(*a))
    }
}

impl FromIterator<Algorithm> for Algorithms {
    fn from_iter<I: IntoIterator<Item = Algorithm>>(list: I) -> Self {
        list.into_iter()
            .fold(Self(0), |set, a| Self(set.0 | Self::of(&[a]).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
        assert_eq!(Algorithm::from_name("Ed25519"), Some(Algorithm::EdDsa));
    }

    /// docs/protocol.md §2.1: `none` is always refused; RFC 8725 §3.1.
    #[test]
    fn other_names_are_not_algorithms() {
        for name in [
            "none",
            "None",
            "NONE",
            "nOnE",
            " none",
            "",
            "eddsa",
            "es256",
            "ES256K",
            "ES512",
            "HS384",
            "RS1",
            "RSA1_5",
            "Ed448",
            "dir",
            "A256KW",
            "ECDH-ES",
            "PBES2-HS256+A128KW",
            "HS256 ",
            "RS256\0",
        ] {
            assert_eq!(Algorithm::from_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn allow_list_allows_only_its_own() {
        let set: Algorithms = [Algorithm::Es256, Algorithm::Rs256].into_iter().collect();
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [Algorithm::Es256, Algorithm::Rs256]
        );
        assert!(!set.allows(Algorithm::Hs256));
        assert!(!Algorithms::PUBLIC_KEY.allows(Algorithm::Hs256));
        assert_eq!(Algorithms::of(&[]).iter().next(), None);
    }
}
