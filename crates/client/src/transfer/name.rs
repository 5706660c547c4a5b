//! Names of files that come from elsewhere, made harmless.
//!
//! What a sender calls a file is a hint. Whoever saves it uses a plain name in a directory of their own choice: never a path, nothing hidden,
//! nothing that a terminal, a shell or an operating system takes for something else.

/// Bytes of a plain name: with what is added to it while the file is not whole, every file system takes it.
pub(crate) const MAX_PLAIN_NAME_BYTES: usize = 200;
/// What a file without a usable name is called.
const NAMELESS: &str = "file";
/// Bytes of an ending that is kept when a name is cut.
const MAX_ENDING_BYTES: usize = 16;
/// Names that are devices on some systems, whatever follows a dot.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];

/// The plain name that comes nearest to `name`.
///
/// It is what follows the last `/` or `\`; has no control characters, no invisible ones, none of `<>:"|?*`; does not begin with a dot, a space or a
/// `-`, nor end with a dot or a space; is not a device's; and has 1 to 200 bytes, of which an ending is kept.
pub(crate) fn plain(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut plain: String = base
        .chars()
        .map(|c| if is_harmless(c) { c } else { '_' })
        .collect();
    if plain.starts_with(['.', '-', ' ']) {
        plain.replace_range(..1, "_");
    }
    if is_device(&plain) {
        plain.insert(0, '_');
    }
    cut(&mut plain);
    plain.truncate(plain.trim_end_matches(['.', ' ']).len());
    // `_` alone stands for nothing but what was taken away.
    if plain.chars().all(|c| c == '_') {
        return NAMELESS.to_owned();
    }
    plain
}

fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !is_invisible(c)
        && !matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*' | '/' | '\\')
}

/// Characters that nobody sees or that turn the direction of others, so that `exe.txt` may be shown for `txt.exe`; but not joiners and selectors, which
/// languages and emoji need.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202f}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Cuts a name to its length, before its ending.
fn cut(name: &mut String) {
    if name.len() <= MAX_PLAIN_NAME_BYTES {
        return;
    }
    let ending = name
        .rfind('.')
        .and_then(|dot| name.get(dot..))
        .filter(|ending| ending.len() <= MAX_ENDING_BYTES)
        .unwrap_or_default()
        .to_owned();
    let mut length = MAX_PLAIN_NAME_BYTES.saturating_sub(ending.len());
    while !name.is_char_boundary(length) {
        length = length.saturating_sub(1);
    }
    name.truncate(length);
    name.push_str(&ending);
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let stem = stem.to_ascii_lowercase();
    let (kind, number) = stem.split_at_checked(3).unwrap_or_default();
    DEVICES.contains(&kind)
        && match kind {
            "com" | "lpt" => number.chars().count() == 1 && !number.starts_with('0'),
            _ => number.is_empty(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_name_stays_as_it_is() {
        for name in [
            "report.pdf",
            "Grüße an alle (2).txt",
            "写真.jpeg",
            "a",
            "no ending",
            "archive.tar.gz",
            "common.txt",
            "console",
            "com10.txt",
        ] {
            assert_eq!(plain(name), name);
        }
    }

    #[test]
    fn name_never_leaves_its_directory() {
        for (name, expected) in [
            ("/etc/passwd", "passwd"),
            ("../../.ssh/authorized_keys", "authorized_keys"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("C:\\autoexec.bat", "autoexec.bat"),
            ("a/b\\c", "c"),
            ("c:evil", "c_evil"),
            ("..", NAMELESS),
            (".", NAMELESS),
            ("...", NAMELESS),
            ("/", NAMELESS),
            ("", NAMELESS),
            ("dir/", NAMELESS),
        ] {
            assert_eq!(plain(name), expected, "{name:?}");
        }
    }

    #[test]
    fn name_is_not_hidden_nor_an_option() {
        for (name, expected) in [
            (".bashrc", "_bashrc"),
            ("dir/.profile", "_profile"),
            ("-rf", "_rf"),
            (" x", "_x"),
            ("x.", "x"),
            ("x. . ", "x"),
        ] {
            assert_eq!(plain(name), expected, "{name:?}");
        }
    }

    #[test]
    fn name_does_not_lie_about_its_ending() {
        for (name, expected) in [
            ("annex\u{202e}fdp.exe", "annex_fdp.exe"),
            ("a\u{0}b", "a_b"),
            ("a\nb", "a_b"),
            ("a\u{1b}[2Jb", "a_[2Jb"),
            ("a\u{200b}.txt", "a_.txt"),
            ("what?.txt", "what_.txt"),
            ("a|b<c>d*e\"f", "a_b_c_d_e_f"),
        ] {
            assert_eq!(plain(name), expected, "{name:?}");
        }
    }

    #[test]
    fn name_is_no_device() {
        for (name, expected) in [
            ("NUL", "_NUL"),
            ("nul.txt", "_nul.txt"),
            ("Com1.log", "_Com1.log"),
            ("aux .c", "_aux .c"),
        ] {
            assert_eq!(plain(name), expected, "{name:?}");
        }
    }

    #[test]
    fn long_name_is_cut_before_its_ending() {
        let long = format!("{}.tar", "ü".repeat(200));
        let plain = plain(&long);
        assert!(plain.ends_with("ü.tar"), "{plain}");
        assert!(plain.len() <= MAX_PLAIN_NAME_BYTES);
        let endless = super::plain(&format!("a.{}", "b".repeat(400)));
        assert_eq!(endless.len(), MAX_PLAIN_NAME_BYTES);
    }

    /// Whatever comes: a plain name is one component, harmless, bounded, and plain already.
    #[test]
    fn any_name_becomes_plain_and_stays_so() {
        let pieces = [
            "/", "\\", ".", "..", "-", " ", "\u{202e}", "\n", "nul", "COM1", "ü", "🦀", "a", "_",
            "b.txt", ":",
        ];
        for first in pieces {
            for second in pieces {
                for third in pieces {
                    for repeat in [1, 150] {
                        let name = format!("{first}{}{third}", second.repeat(repeat));
                        let once = plain(&name);
                        assert_eq!(plain(&once), once, "{name:?}");
                        assert!((1..=MAX_PLAIN_NAME_BYTES).contains(&once.len()), "{name:?}");
                        assert!(once.chars().all(is_harmless), "{name:?}");
                        assert!(!once.starts_with(['.', '-', ' ']), "{name:?}");
                        let path = std::path::Path::new(&once);
                        assert_eq!(path.file_name(), Some(once.as_ref()), "{name:?}");
                    }
                }
            }
        }
    }
}
