//! Looking for a secret in every form in which it could have been written.

use std::collections::{HashMap, HashSet};
use std::fmt;

use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding as _};

/// The shortest piece that is looked for. Anything shorter would be found by chance.
const PIECE: usize = 12;

/// Something to look for. What it is is shown, its content is not.
pub(crate) struct Needle {
    what: &'static str,
    forms: Vec<(&'static str, Vec<u8>)>,
}

/// Bytes to look in, with every piece of them.
pub(crate) struct Haystack {
    name: String,
    bytes: Vec<u8>,
    pieces: HashSet<u64>,
}

impl Needle {
    pub(crate) fn bytes(what: &'static str, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= PIECE, "{what} is too short to be looked for");
        let hex = |upper| {
            let digits = bytes.iter().map(|byte| {
                if upper {
                    format!("{byte:02X}")
                } else {
                    format!("{byte:02x}")
                }
            });
            digits.collect::<String>().into_bytes()
        };
        // `Debug` of a slice of bytes, on one line and on many.
        let list = |between: &str| {
            let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
            numbers.join(between).into_bytes()
        };
        let mut forms = vec![
            ("as it is", bytes.to_vec()),
            ("as hex", hex(false)),
            ("as hex", hex(true)),
            ("as a list", list(", ")),
            ("as a list", list(",")),
        ];
        for shift in 0..3 {
            forms.push((
                "as base64",
                aligned(bytes, shift, Base64Unpadded::encode_string),
            ));
            forms.push((
                "as base64url",
                aligned(bytes, shift, Base64UrlUnpadded::encode_string),
            ));
        }
        Self { what, forms }
    }

    pub(crate) fn text(what: &'static str, text: &str) -> Self {
        let mut needle = Self::bytes(what, text.as_bytes());
        needle.forms.push((
            "as UTF-16LE",
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ));
        needle.forms.push((
            "as UTF-16BE",
            text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        ));
        needle
            .forms
            .push(("escaped", text.escape_default().to_string().into_bytes()));
        needle
            .forms
            .push(("in JSON", text.escape_unicode().to_string().into_bytes()));
        needle
    }
}

/// The characters of base64 that the bytes alone determine where `shift` other bytes stand before them, modulo 3.
fn aligned(bytes: &[u8], shift: usize, encode: impl Fn(&[u8]) -> String) -> Vec<u8> {
    let mut shifted = vec![0; shift];
    shifted.extend_from_slice(bytes);
    let whole = shifted.len() / 3 * 4;
    let begin = [0, 2, 3][shift];
    encode(&shifted).into_bytes()[begin..whole].to_vec()
}

impl Haystack {
    pub(crate) fn new(name: &str, bytes: Vec<u8>) -> Self {
        let pieces = bytes.windows(PIECE).map(mark).collect();
        Self {
            name: name.to_owned(),
            bytes,
            pieces,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// In which form the needle is in here, whole or in part: a half that got out is bad enough.
    pub(crate) fn find(&self, needle: &Needle) -> Option<&'static str> {
        let there = |form: &[u8]| {
            let halves = form
                .chunks((form.len() / 2).max(PIECE))
                .filter(|half| half.len() >= PIECE);
            halves.into_iter().any(|half| self.contains(half))
        };
        needle
            .forms
            .iter()
            .find(|(_, form)| there(form))
            .map(|(form, _)| *form)
    }

    pub(crate) fn has(&self, needle: &Needle) -> bool {
        self.find(needle).is_some()
    }

    fn contains(&self, part: &[u8]) -> bool {
        self.pieces.contains(&mark(&part[..PIECE]))
            && self.bytes.windows(part.len()).any(|window| window == part)
    }
}

/// Nearly unique to a piece.
fn mark(piece: &[u8]) -> u64 {
    let (head, tail) = (&piece[..8], &piece[PIECE - 8..]);
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    number(head) ^ number(tail).rotate_left(29)
}

/// Looks for everything everywhere.
pub(crate) fn none_found<'h>(
    needles: &[Needle],
    haystacks: impl IntoIterator<Item = &'h Haystack>,
) {
    let mut found: HashMap<String, usize> = HashMap::new();
    for haystack in haystacks {
        for needle in needles {
            if let Some(form) = haystack.find(needle) {
                *found
                    .entry(format!("{} {form} in {}", needle.what, haystack.name))
                    .or_default() += 1;
            }
        }
    }
    assert!(found.is_empty(), "found, how often: {found:#?}");
}

impl fmt::Debug for Needle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

#[test]
fn search_finds_a_secret_in_every_form() {
    let secret: [u8; 32] = rand::random();
    let needle = Needle::bytes("secret", &secret);
    let inside = |hay: String| Haystack::new("hay", format!("before {hay} after").into_bytes());
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    for hay in [
        hex.clone(),
        hex.to_uppercase(),
        format!("{secret:?}"),
        Base64Unpadded::encode_string(&secret),
    ] {
        assert!(inside(hay).has(&needle));
    }
    for before in 0..6 {
        for after in 0..6 {
            let mut bytes: Vec<u8> = (0..before).map(|_| rand::random()).collect();
            bytes.extend_from_slice(&secret);
            bytes.extend((0..after).map(|_| rand::random::<u8>()));
            assert!(
                inside(Base64Unpadded::encode_string(&bytes)).has(&needle),
                "{before} {after}"
            );
            assert!(
                inside(Base64UrlUnpadded::encode_string(&bytes)).has(&needle),
                "{before} {after}"
            );
            assert!(Haystack::new("hay", bytes).has(&needle), "{before} {after}");
        }
    }
    assert!(Haystack::new("half of it", secret[16..].to_vec()).has(&needle));
    assert!(!Haystack::new("another", rand::random::<[u8; 32]>().to_vec()).has(&needle));
    assert!(!Haystack::new("nothing", Vec::new()).has(&needle));
}

#[test]
fn search_finds_words_in_every_form() {
    let needle = Needle::text("words", "schläft im Wäscheschrank");
    let utf16 = |bytes: fn(u16) -> [u8; 2]| {
        "er schläft im Wäscheschrank"
            .encode_utf16()
            .flat_map(bytes)
            .collect()
    };
    for hay in [
        "er schläft im Wäscheschrank".as_bytes().to_vec(),
        utf16(u16::to_le_bytes),
        utf16(u16::to_be_bytes),
        format!("{:?}", "er schläft im Wäscheschrank".as_bytes()).into_bytes(),
        Base64UrlUnpadded::encode_string("er schläft im Wäscheschrank!".as_bytes()).into_bytes(),
    ] {
        assert!(Haystack::new("hay", hay).has(&needle));
    }
    assert!(!Haystack::new("hay", "sie wacht im Kleiderschrank".into()).has(&needle));
}
