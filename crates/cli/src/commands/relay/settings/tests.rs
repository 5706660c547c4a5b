use std::collections::BTreeSet;
use std::time::Duration;

use sealwire_jose::{Algorithm, Algorithms};
use sealwire_protocol::name;
use sealwire_server::exchange::ExchangeIssuer;
use sealwire_server::issuer_keys::KeySource;
use sealwire_server::policy::Allowance;
use serde_json::{Value, json};

use super::*;

const FILE: &str = "/etc/sealwire/relay.toml";

fn read(text: &str) -> Loaded {
    Loaded::of(
        Some((Path::new(FILE), text)),
        std::iter::empty(),
        Vec::new(),
    )
}

fn with(text: &str, variables: &[(&str, &str)], flags: Vec<Flag>) -> Loaded {
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    Loaded::of(Some((Path::new(FILE), text)), variables.into_iter(), flags)
}

fn flag(path: &'static str, flag: &'static str, value: &str) -> Flag {
    Flag {
        path,
        flag,
        value: Raw::Word(value.to_owned()),
    }
}

/// The problems as they are shown, without the name of the file.
fn problems(loaded: &Loaded) -> Vec<String> {
    let shown = loaded.problems.iter().map(Problem::to_string);
    shown
        .map(|problem| match problem.strip_prefix(FILE) {
            Some(rest) => rest.trim_start_matches(':').to_owned(),
            None => problem,
        })
        .collect()
}

fn now(loaded: &Loaded, path: &str) -> (Value, String) {
    let found = loaded.declared.iter().find(|one| one.path() == path);
    let found = found.unwrap_or_else(|| panic!("there is no {path}"));
    let value = found.now.clone().unwrap_or_default();
    (value, found.source.to_string())
}

#[test]
fn nothing_configured_is_what_the_relay_does_by_itself() {
    let loaded = Loaded::default();
    assert_eq!(loaded.problems, []);
    let built = loaded
        .configuration
        .builder(Path::new("data"), None)
        .unwrap();
    assert_eq!(
        format!("{built:?}"),
        format!("{:?}", Relay::builder("data"))
    );
}

#[test]
fn every_setting_reaches_the_relay() {
    let everything = "
        data = \"data\"
        [tls]
        mode = \"none\"
        [limits]
        messages_per_minute = 101
        card_fetches_per_minute = 102
        card_fetches_per_minute_per_tenant = 135
        refreshes_per_minute = 103
        max_message_bytes = \"33 KiB\"
        mailbox_messages = 104
        mailbox_bytes = 105
        mailbox_retention = \"106 s\"
        transfer_bytes_per_minute = 107
        blob_bytes_per_user = 108
        blob_bytes = 109
        blobs_per_user = 110
        blobs = 111
        blob_uploads_per_user = 112
        blob_retention = 113
        blob_upload_time = 114
        blob_reserved_bytes = 115
        frames_per_minute = 119
        frames_per_minute_per_user = 133
        frames_per_minute_per_tenant = 134
        bytes_per_minute = 2000000
        bytes_per_minute_per_user = 2000001
        bytes_per_minute_per_tenant = 2000002
        connections = 121
        unauthenticated = 122
        unauthenticated_per_address = 123
        connections_per_minute = 124
        links_per_user = 125
        links_per_tenant = 127
        links_per_minute = 130
        links_per_minute_per_user = 131
        links_per_minute_per_tenant = 132
        handshake_deadline = 16
        keep_alive = 117
        write_timeout = 118
        allowed_origins = [\"https://app.example\", \"http://127.0.0.1:3000\"]
        [listen]
        public_address = \"wss://relay.example:444/v1\"
        [issuer]
        issuer = \"https://id.example\"
        audience = \"https://relay.example\"
        jwks = \"keys.json\"
        algorithms = [\"ES256\"]
        [admin]
        listen = \"127.0.0.1:126\"
        [drain]
        within = \"127 s\"
        return_after = 28
        [telemetry]
        one_in = 129";
    let loaded = read(everything);
    assert_eq!(problems(&loaded), [""; 0]);
    let built = loaded
        .configuration
        .builder(Path::new("data"), None)
        .unwrap();

    let mut allowance = Allowance::default();
    allowance.messages_per_minute = 101;
    allowance.card_fetches_per_minute = 102;
    allowance.card_fetches_per_minute_per_tenant = 135;
    allowance.refreshes_per_minute = 103;
    allowance.max_message_bytes = 33 << 10;
    allowance.mailbox.messages = 104;
    allowance.mailbox.bytes = 105;
    allowance.mailbox.retention_seconds = 106;
    allowance.transfer_bytes_per_minute = 107;
    allowance.blobs.bytes_per_user = 108;
    allowance.blobs.bytes = 109;
    allowance.blobs.blobs_per_user = 110;
    allowance.blobs.blobs = 111;
    allowance.blobs.uploads_per_user = 112;
    allowance.blobs.retention_seconds = 113;
    allowance.blobs.upload_seconds = 114;
    allowance.blobs.reserved_bytes = 115;
    allowance.frames_per_minute = 119;
    allowance.frames_per_minute_per_user = 133;
    allowance.frames_per_minute_per_tenant = 134;
    allowance.bytes_per_minute = 2_000_000;
    allowance.bytes_per_minute_per_user = 2_000_001;
    allowance.bytes_per_minute_per_tenant = 2_000_002;
    let mut connections = ConnectionLimits::default();
    connections.connections = 121;
    connections.unauthenticated = 122;
    connections.unauthenticated_per_address = 123;
    connections.per_minute = 124;
    connections.links_per_user = 125;
    connections.links_per_tenant = Some(127);
    connections.links_per_minute = 130;
    connections.links_per_minute_per_user = 131;
    connections.links_per_minute_per_tenant = 132;
    let expected = Relay::builder("data")
        .tls(Tls::Plain)
        .allowance(allowance)
        .connection_limits(connections)
        .admin("127.0.0.1:126".parse().unwrap())
        .handshake_deadline(Duration::from_secs(16))
        .keep_alive(Duration::from_secs(117))
        .write_timeout(Duration::from_secs(118))
        .allow_origin("https://app.example")
        .allow_origin("http://127.0.0.1:3000")
        .public_host("relay.example:444")
        .issuer_with_keys_from(
            name::Issuer::new("https://id.example").unwrap(),
            "https://relay.example",
            KeySource::file(
                "/etc/sealwire/keys.json",
                Algorithms::of(&[Algorithm::Es256]),
            ),
        );
    assert_eq!(format!("{built:?}"), format!("{expected:?}"));
    let drain = Drain::default()
        .within(Duration::from_secs(127))
        .return_after(Duration::from_secs(28));
    assert_eq!(loaded.configuration.drain, drain);

    // There is a setting for every limit of the relay.
    let lines = |allowance: &Allowance| -> Vec<String> {
        let shown = format!("{allowance:#?}");
        let numbers = shown.lines().map(|line| line.trim().trim_end_matches(','));
        let numbers = numbers.filter(|line| line.ends_with(|c: char| c.is_ascii_digit()));
        numbers.map(str::to_owned).collect()
    };
    let (set, usual) = (
        lines(&loaded.configuration.limits.allowance),
        lines(&Allowance::default()),
    );
    assert_eq!(set.len(), usual.len());
    for (set, usual) in set.iter().zip(&usual) {
        assert_ne!(set, usual, "there is no setting for it");
    }

    // Nothing that can be set was left out: only what is used with another mode or another place of the keys.
    let unset: Vec<_> = loaded
        .declared
        .iter()
        .filter(|one| one.source == Source::Default)
        .map(Declared::path)
        .collect();
    assert_eq!(
        unset,
        [
            "require_tenant",
            "listen.address",
            "tls.certificate",
            "tls.key",
            "issuer.jwks_trust",
            "log.format",
            "log.filter",
            "telemetry.otlp_endpoint"
        ]
    );
}

#[test]
fn unknown_key_is_named_with_its_line_and_the_nearest_one() {
    for (text, said) in [
        ("dta = \"x\"", "1: there is no key dta; did you mean data?"),
        (
            "[limits]\n\nmesages_per_minute = 5",
            "3: there is no key limits.mesages_per_minute; did you mean messages_per_minute?",
        ),
        (
            "messages_per_minute = 5",
            "1: there is no key messages_per_minute; did you mean limits.messages_per_minute?",
        ),
        (
            "[tls]\nissuer = \"x\"",
            "2: there is no key tls.issuer; did you mean issuer.issuer?",
        ),
        ("[tls]\nchildren = 3", "2: there is no key tls.children"),
        (
            "[limit]\nblobs = 3",
            "1: there is no section [limit]; did you mean [limits]?",
        ),
        (
            "[somewhere]\nx = 1\ny = 2",
            "1: there is no section [somewhere]",
        ),
        (
            "limits = 3",
            "1: limits is a section: write [limits], and its keys below",
        ),
        (
            "[[tls]]\nmode = \"none\"",
            "1: tls is one section: write [tls], and its keys below",
        ),
        (
            "[exchange]\nissuer = \"i\"",
            "1: there may be several exchange: write [[exchange]], and the keys of one below",
        ),
        (
            "[[exchanges]]\nissuer = \"i\"",
            "1: there is no section [[exchanges]]; did you mean [[exchange]]?",
        ),
        (
            "exchange = 1",
            "1: exchange are sections: write [[exchange]], and the keys of one below",
        ),
    ] {
        assert_eq!(problems(&read(text)), [said], "{text}");
    }
}

#[test]
fn wrong_value_is_named_with_its_line_and_what_is_allowed() {
    for (text, said) in [
        (
            "[limits]\nmessages_per_minute = 0",
            "2: limits.messages_per_minute is 0; write a whole number from 1 to 10000000",
        ),
        (
            "[limits]\nmessages_per_minute = \"600\"",
            "2: limits.messages_per_minute is \"600\"; write a whole number from 1 to 10000000",
        ),
        (
            "[limits]\nmessages_per_minute = -5",
            "2: limits.messages_per_minute is a number below 0 or beyond 64 bits; write a whole number from 1 to 10000000",
        ),
        (
            "[limits]\nmessages_per_minute = 5.0",
            "2: limits.messages_per_minute is a fraction; write a whole number from 1 to 10000000",
        ),
        (
            "[limits]\nmax_message_bytes = \"1 MiB\"",
            "2: limits.max_message_bytes is \"1 MiB\"; write a size from 16 KiB to 96 KiB: \"64 MiB\", or a number of bytes",
        ),
        (
            "[limits]\nkeep_alive = \"5 fortnights\"",
            "2: limits.keep_alive is \"5 fortnights\"; write a time from 1 s to 10 min: \"30 d\", \"12 h\", \"5 min\", \"30 s\", or a number of seconds",
        ),
        (
            "[limits]\nallowed_origins = \"https://app.example\"",
            "2: limits.allowed_origins is \"https://app.example\"; write a list, each an origin, as in \"https://app.example\"",
        ),
        (
            "[limits]\nallowed_origins = [\"https://app.example/\"]",
            "2: limits.allowed_origins is a list; write a list, each an origin, as in \"https://app.example\"",
        ),
        (
            "[drain]\nreturn_after = 31",
            "2: drain.return_after is 31; write a time from 0 to 30 s: \"30 d\", \"12 h\", \"5 min\", \"30 s\", or a number of seconds",
        ),
        (
            "[tls]\nmode = \"on\"",
            "2: tls.mode is \"on\"; write \"self-signed\" or \"files\" or \"none\"",
        ),
        (
            "data = true",
            "1: data is true; write the name of a directory",
        ),
        (
            "data = \"\"",
            "1: data is \"\"; write the name of a directory",
        ),
        (
            "[listen]\naddress = \"nowhere\"",
            "2: listen.address is \"nowhere\"; write an address and port, as in 127.0.0.1:8443 or [::]:443",
        ),
        (
            "[listen]\npublic_address = \"https://relay.example\"",
            "2: listen.public_address is \"https://relay.example\"; write a relay's address, wss://HOST[:PORT]/v1",
        ),
        (
            "[listen]\npublic_address = \"ws://127.0.0.1/v1\"",
            "2: listen.public_address is \"ws://127.0.0.1/v1\"; write a relay's address, wss://HOST[:PORT]/v1",
        ),
        (
            "[telemetry]\notlp_endpoint = \"http://127.0.0.1:4318/v1/traces\"",
            "2: telemetry.otlp_endpoint is \"http://127.0.0.1:4318/v1/traces\"; write a collector's address, as in \"http://127.0.0.1:4318\"",
        ),
        (
            "[log]\nfilter = \"a=b=c\"",
            "2: log.filter is \"a=b=c\"; write error, warn, info, debug or trace, or parts with a level, as in \"warn,sealwire_server=info\"",
        ),
        (
            "[log]\nformat = \"a\\u001b[2J\"",
            "2: log.format is \"a\\u{1b}[2J\"; write \"text\" or \"json\"",
        ),
    ] {
        assert_eq!(problems(&read(text)), [said], "{text}");
    }
    for (endpoint, is_good) in [
        ("http://localhost:4318", true),
        ("https://otlp.example/otlp", true),
        ("http://[::1]:4318", true),
        ("http://user:secret@localhost:4318", false),
        ("http://localhost:4318?key=secret", false),
        ("http://localhost:4318#", false),
        ("http://localhost:4318/", false),
        ("http://[", false),
        ("localhost:4318", false),
    ] {
        let loaded = read(&format!("[telemetry]\notlp_endpoint = \"{endpoint}\""));
        let wrong = "write a collector's address";
        let refused = problems(&loaded).iter().any(|said| said.contains(wrong));
        assert_eq!(refused, !is_good, "{endpoint}");
    }
    // HS256 would have a secret that signs; `none` would have nothing.
    for name in ["HS256", "none", "es256"] {
        let loaded = read(&format!("[issuer]\nalgorithms = [\"{name}\"]"));
        let said = problems(&loaded).join("\n");
        assert!(
            said.starts_with("2: issuer.algorithms is a list; write"),
            "{said}"
        );
    }
}

#[test]
fn what_is_no_toml_is_reported_line_by_line() {
    let broken = read("data = \n[limits\nblobs = 5\n");
    assert!(broken.unreadable);
    let said = problems(&broken);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("1: this is no TOML: "), "{said:?}");
    assert!(said[1].starts_with("2: this is no TOML: "), "{said:?}");
    let twice = problems(&read("[limits]\nblobs = 5\nblobs = 6\n"));
    assert!(twice[0].starts_with("3: this is no TOML: "), "{twice:?}");
}

/// Whoever repairs a file wants to know all that is wrong with it.
#[test]
fn every_problem_is_reported() {
    let loaded = with(
        "date = 1\n[limits]\nblobs = 0\nblob = 1\n[tls]\nmode = \"files\"\n",
        &[
            ("SEALWIRE_RELAY_LISTEN_ADDRESS", "x"),
            ("SEALWIRE_RELAY_HTML", "y"),
        ],
        vec![flag("log.filter", "--log", "a=b=c")],
    );
    let said = problems(&loaded);
    let begins: Vec<_> = said
        .iter()
        .map(|one| one.split(';').next().unwrap())
        .collect();
    assert_eq!(
        begins,
        [
            "1: there is no key date",
            "3: limits.blobs is 0",
            "4: there is no key limits.blob",
            "6: tls.certificate is missing: TLS with files needs a certificate and its key",
            "6: tls.key is missing: TLS with files needs a certificate and its key",
            "SEALWIRE_RELAY_HTML: there is no such setting",
            "SEALWIRE_RELAY_LISTEN_ADDRESS: listen.address is \"x\"",
            "--log: log.filter is \"a=b=c\"",
        ]
    );
}

/// It is for every command, so that the relay's own wins.
#[test]
fn variable_of_every_command_says_what_is_logged_where_the_relays_own_does_not() {
    let file = "[log]\nfilter = \"error\"\n";
    let every = ("SEALWIRE_LOG", "debug");
    let own = ("SEALWIRE_RELAY_LOG_FILTER", "trace");
    for (variables, flags, value, source) in [
        (&[every][..], vec![], "debug", "SEALWIRE_LOG"),
        (&[every, own], vec![], "trace", "SEALWIRE_RELAY_LOG_FILTER"),
        (&[own, every], vec![], "trace", "SEALWIRE_RELAY_LOG_FILTER"),
        (
            &[own, every],
            vec![flag("log.filter", "--log", "info")],
            "info",
            "--log",
        ),
    ] {
        let loaded = with(file, variables, flags);
        assert_eq!(problems(&loaded), [""; 0]);
        let said = (json!(value), source.to_owned());
        assert_eq!(now(&loaded, "log.filter"), said);
    }
    let wrong = with(file, &[("SEALWIRE_LOG", "a=b=c")], vec![]);
    let said = problems(&wrong);
    assert!(
        said[0].starts_with("SEALWIRE_LOG: log.filter is \"a=b=c\"; write"),
        "{said:?}"
    );
}

#[test]
fn flag_wins_over_variable_and_that_over_the_file() {
    let file = "[limits]\nblobs = 1\nblobs_per_user = 2\nblob_uploads_per_user = 3\n";
    let loaded = with(
        file,
        &[
            ("SEALWIRE_RELAY_LIMITS_BLOBS_PER_USER", "20"),
            ("SEALWIRE_RELAY_LIMITS_BLOB_UPLOADS_PER_USER", "30"),
            ("SEALWIRE_RELAY_CONFIG", "/etc/sealwire/relay.toml"),
        ],
        vec![flag("limits.blob_uploads_per_user", "--flag", "300")],
    );
    assert_eq!(problems(&loaded), [""; 0]);
    for (path, value, source) in [
        ("limits.blobs", 1, "/etc/sealwire/relay.toml:2"),
        (
            "limits.blobs_per_user",
            20,
            "SEALWIRE_RELAY_LIMITS_BLOBS_PER_USER",
        ),
        ("limits.blob_uploads_per_user", 300, "--flag"),
    ] {
        assert_eq!(now(&loaded, path), (json!(value), source.to_owned()));
    }
    assert_eq!(
        now(&loaded, "limits.mailbox_messages"),
        (json!(10_000), "default".to_owned())
    );
}

#[test]
fn every_setting_has_a_variable_of_its_own() {
    let settings = Loaded::default().declared;
    let names: BTreeSet<_> = settings.iter().filter_map(Declared::variable).collect();
    assert_eq!(names.len(), settings.len());
    assert!(names.contains("SEALWIRE_RELAY_DATA"));
    for one in &settings {
        let value = match &one.usual {
            Usual::Default(value) => value.clone(),
            Usual::Example(example) => json!(example),
        };
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| item.as_str().unwrap()).collect();
                items.join(",")
            }
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Null | Value::Object(_) => panic!("{value}"),
        };
        let name = one.variable().unwrap();
        let loaded = with("", &[(&name, &text)], Vec::new());
        assert_eq!(now(&loaded, &one.path()), (value, name));
    }
}

#[test]
fn unknown_variable_is_an_error_with_the_nearest_name() {
    let loaded = with(
        "",
        &[("SEALWIRE_RELAY_LISTEN_ADRESS", "127.0.0.1:1")],
        Vec::new(),
    );
    assert_eq!(
        problems(&loaded),
        [
            "SEALWIRE_RELAY_LISTEN_ADRESS: there is no such setting; did you mean SEALWIRE_RELAY_LISTEN_ADDRESS?"
        ]
    );
}

#[test]
fn secret_in_the_file_is_refused_and_not_repeated() {
    let secret = "MC4CAQAwBQYDK2VwBCIEIDk";
    for text in [
        format!(
            "[tls]\nmode = \"files\"\ncertificate = \"c\"\nkey = \"\"\"-----BEGIN PRIVATE KEY-----\n{secret}\n\"\"\""
        ),
        format!("[tls]\nmode = \"files\"\ncertificate = \"c\"\nkey = \"\"\"{secret}\n\"\"\""),
        format!(
            "[issuer]\nissuer = \"i\"\naudience = \"a\"\njwks = '{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"{secret}\"}}]}}'"
        ),
    ] {
        let said = problems(&read(&text));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("4: "), "{said:?}");
        assert!(said[0].contains("file"), "{said:?}");
        assert!(!said[0].contains(secret), "{said:?}");
    }
}

#[test]
fn certificate_that_would_not_be_used_is_an_error_unless_it_was_switched_off() {
    let files = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
    let unused = problems(&read(files));
    assert_eq!(
        unused,
        [
            "2: tls.certificate would not be used; set tls.mode to \"files\", or leave it away",
            "3: tls.key would not be used; set tls.mode to \"files\", or leave it away"
        ]
    );
    let with_mode = format!("{files}mode = \"files\"\n");
    let loaded = read(&with_mode);
    assert_eq!(problems(&loaded), [""; 0]);
    assert!(matches!(
        loaded.configuration.tls,
        TlsSettings::Files { certificate, .. } if certificate.value == Path::new("/etc/sealwire/c")
    ));
    // Somebody tries the relay without TLS, with the file of the service.
    let loaded = with(&with_mode, &[], vec![flag("tls.mode", "--plain", "none")]);
    assert_eq!(problems(&loaded), [""; 0]);
    assert!(matches!(loaded.configuration.tls, TlsSettings::None));
    let loaded = with(
        "[tls]\nmode = \"none\"",
        &[("SEALWIRE_RELAY_TLS_KEY", "k")],
        Vec::new(),
    );
    assert_eq!(
        problems(&loaded),
        [
            "SEALWIRE_RELAY_TLS_KEY: tls.key would not be used; set tls.mode to \"files\", or leave it away"
        ]
    );
}

#[test]
fn identity_provider_is_configured_whole_or_not_at_all() {
    assert!(Loaded::default().configuration.issuer.is_none());
    for (text, said) in [
        (
            "[issuer]\nissuer = \"i\"\njwks = \"k\"",
            "3: issuer.audience is missing: an identity provider needs issuer, audience and jwks",
        ),
        (
            "[issuer]\nissuer = \"i\"\naudience = \"a\"\njwks = \"k\"\njwks_trust = \"t\"",
            "5: issuer.jwks_trust is for an issuer.jwks that is a URL",
        ),
        (
            "[issuer]\nissuer = \"i\"\naudience = \"a\"\njwks = \"k\"\nalgorithms = []",
            "5: issuer.algorithms is empty: no token would be accepted",
        ),
    ] {
        assert_eq!(problems(&read(text)), [said], "{text}");
    }
    let alone = problems(&read("[issuer]\nalgorithms = [\"ES256\"]"));
    assert_eq!(alone.len(), 3, "{alone:?}");
    // A part of it may come from elsewhere.
    let loaded = with(
        "[issuer]\nissuer = \"i\"\naudience = \"a\"\njwks = \"k\"",
        &[("SEALWIRE_RELAY_ISSUER_JWKS", "https://id.example/keys")],
        Vec::new(),
    );
    assert_eq!(problems(&loaded), [""; 0]);
    let issuer = loaded.configuration.issuer.unwrap();
    assert_eq!(
        issuer.jwks.value,
        Jwks::Url("https://id.example/keys".to_owned())
    );
    assert!(issuer.source().is_ok());
    let wrong = with(
        "[issuer]\nissuer = \"i\"\naudience = \"a\"\njwks = \"http://id.example/keys\"",
        &[],
        Vec::new(),
    );
    let error = wrong.configuration.issuer.unwrap().source().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/etc/sealwire/relay.toml:4: issuer.jwks is"),
        "{error}"
    );
}

const EXCHANGE: &str = "[[exchange]]
issuer = \"https://id.example\"
audience = \"chat\"
jwks = \"keys.json\"
";

#[test]
fn providers_whose_tokens_are_exchanged_reach_the_relay() {
    let file = format!(
        "require_tenant = true
{EXCHANGE}scopes = \"sealwire:send sealwire:receive\"
prefix = \"acme/\"
prefix_is_tenant = true
[[exchange]]
issuer = \"https://other.example\"
audience = \"chat\"
jwks = \"/other.json\"
algorithms = [\"ES256\"]
prefix = \"other/\"
typ = [\"JWT\", \"\"]
id_tokens = true
user = \"{{org}}/{{email}}\"
scope_claim = \"realm_access.roles\"
tenant_claim = \"org\"
shared_users = true
[exchange.scopes]
chat = [\"sealwire:send\", \"sealwire:publish\"]
\"chat.read\" = \"sealwire:receive\"
"
    );
    let loaded = read(&file);
    assert_eq!(problems(&loaded), [""; 0]);
    let built = loaded
        .configuration
        .builder(Path::new("data"), None)
        .unwrap();
    let keys = |file, algorithms| KeySource::file(file, algorithms);
    let expected = Relay::builder("data")
        .exchange(
            ExchangeIssuer::new(
                "https://id.example",
                "chat",
                "acme/",
                keys("/etc/sealwire/keys.json", Algorithms::PUBLIC_KEY),
            )
            .unwrap()
            .scopes("sealwire:send sealwire:receive")
            .unwrap()
            .prefix_is_tenant(),
        )
        .exchange(
            ExchangeIssuer::new(
                "https://other.example",
                "chat",
                "other/",
                keys("/other.json", Algorithms::of(&[Algorithm::Es256])),
            )
            .unwrap()
            .types(&["JWT", ""])
            .unwrap()
            .id_tokens(true)
            .user("{org}/{email}")
            .unwrap()
            .scope_claim("realm_access.roles")
            .unwrap()
            .scope("chat", "sealwire:send sealwire:publish")
            .unwrap()
            .scope("chat.read", "sealwire:receive")
            .unwrap()
            .tenant_claim("org")
            .unwrap()
            .shared_users(true),
        )
        .require_tenant(true);
    assert_eq!(format!("{built:?}"), format!("{expected:?}"));

    // Nothing that can be set was left out.
    let set: BTreeSet<_> = loaded
        .declared
        .iter()
        .filter(|one| one.number.is_some() && one.source != Source::Default)
        .map(|one| one.key)
        .collect();
    let possible: BTreeSet<_> = loaded.possible.iter().map(|one| one.key).collect();
    let unset: Vec<_> = possible.difference(&set).collect();
    assert_eq!(unset, [&"jwks_trust"]);
    assert_eq!(
        now(&loaded, "exchange[1].scopes"),
        (
            json!({"chat": "sealwire:send sealwire:publish", "chat.read": "sealwire:receive"}),
            "/etc/sealwire/relay.toml:21".to_owned()
        )
    );
}

#[test]
fn what_is_wrong_with_one_of_several_providers_is_told_with_its_line() {
    let first = format!("{EXCHANGE}scopes = \"sealwire:send\"\n");
    for (second, said) in [
        ("user = \"{sub\"", "10: exchange[1]: user \"{sub\""),
        ("prefix = \"acme\"", "10: exchange[1]: prefix \"acme\""),
        ("scopes = \"send\"", "10: exchange[1]: scopes \"send\""),
        ("typ = []", "10: exchange[1]: typ"),
        (
            "tenant_claim = \"a..b\"",
            "10: exchange[1]: tenant_claim \"a..b\"",
        ),
        (
            "id_tokens = \"yes\"",
            "10: exchange[1].id_tokens is \"yes\"; write true or false",
        ),
        (
            "scopes = { chat = 5 }",
            "10: exchange[1].scopes is a table; write a list of sealwire:send",
        ),
        (
            "tennant_claim = \"org\"",
            "10: there is no key exchange.tennant_claim; did you mean tenant_claim?",
        ),
    ] {
        let other = EXCHANGE.replace("id.example", "other.example");
        let scopes = if second.starts_with("scopes") {
            ""
        } else {
            "shared_users = false\nscopes = \"sealwire:send\"\n"
        };
        let prefix = if second.starts_with("prefix") {
            ""
        } else {
            "prefix = \"other/\"\n"
        };
        let loaded = read(&format!("{first}{other}{second}\n{scopes}{prefix}"));
        let said_all = problems(&loaded);
        assert_eq!(said_all.len(), 1, "{said_all:?}");
        assert!(said_all[0].starts_with(said), "{said_all:?}");
    }
    let incomplete = problems(&read(&format!("{first}[[exchange]]\nprefix = \"a/\"\n")));
    assert_eq!(
        incomplete,
        ["audience", "issuer", "jwks"].map(|key| format!(
            "6: exchange[1].{key} is missing: an identity provider needs issuer, audience and jwks"
        ))
    );
    for (second, said) in [
        ("", "there are two exchange issuers https://id.example"),
        (
            "[issuer]\nissuer = \"i\"\naudience = \"a\"\njwks = \"k\"\n",
            "tokens are exchanged for those of the built-in issuer",
        ),
    ] {
        let second = if second.is_empty() { &first } else { second };
        let together = problems(&read(&format!("{first}{second}")));
        assert_eq!(together.len(), 1, "{together:?}");
        assert!(together[0].contains(said), "{together:?}");
    }
    let nobody = problems(&read(EXCHANGE));
    assert!(nobody[0].contains("say either what scopes"), "{nobody:?}");
    // A variable is for what is there once.
    let loaded = with("", &[("SEALWIRE_RELAY_EXCHANGE_ISSUER", "i")], Vec::new());
    assert_eq!(loaded.problems.len(), 1);
}

#[test]
fn paths_of_the_file_are_relative_to_it_and_others_are_not() {
    let loaded = read("data = \"data\"");
    assert_eq!(
        loaded.configuration.data.unwrap().value,
        Path::new("/etc/sealwire/data")
    );
    let loaded = with("", &[("SEALWIRE_RELAY_DATA", "data")], Vec::new());
    assert_eq!(loaded.configuration.data.unwrap().value, Path::new("data"));
}
