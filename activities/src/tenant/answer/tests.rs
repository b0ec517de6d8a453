//! One body or text at a time: what is removed, clipped, refused and understood.

use serde::Deserialize;
use serde_json::{Value, json};

use super::unwanted::is_unwanted;
use super::*;

const KEY: &str = "s3cr3t/key+with \"quotes\" & <marks>";

fn sanitizer() -> Sanitizer {
    Sanitizer::without([KEY, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzZXJ2aWNlIn0.c2lnbmF0dXJlLXBhcnQ", "short"])
}

#[test]
fn a_secret_is_removed_in_every_spelling_that_an_echo_is_likely_to_have() {
    let json = serde_json::to_string(KEY).expect("it is a text");
    let base64 = |text: &str| {
        // By the alphabet and by hand: three bytes are four digits.
        let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
        let bits: Vec<u8> = text.bytes().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
        let digit = |six: &[u8]| {
            let value = six.iter().chain([0; 6].iter()).take(6).fold(0, |value, bit| value << 1 | usize::from(*bit));
            alphabet[value]
        };
        bits.chunks(6).map(digit).collect::<String>()
    };
    for echo in [
        format!("authorization: Bearer {KEY}"),
        "s3cr3t%2Fkey%2Bwith%20%22quotes%22%20%26%20%3Cmarks%3E".to_owned(),
        "s3cr3t%2fkey%2bwith%20%22quotes%22%20%26%20%3cmarks%3e".to_owned(),
        json[1..json.len() - 1].to_owned(),
        json[1..json.len() - 1].replace('/', r"\/"),
        "s3cr3t/key+with &quot;quotes&quot; &amp; &lt;marks&gt;".to_owned(),
        base64(KEY),
        base64(&format!("Bearer {KEY}")),
        base64(&format!("x{KEY}x")),
        base64(&format!("xx{KEY}")),
        "only eyJzdWIiOiJzZXJ2aWNlIn0 of it".to_owned(),
    ] {
        let shown = sanitizer().text(&echo).into_owned();
        for part in ["s3cr3t", "quotes", "eyJzdWIi", "dCJxdW90ZXM"] {
            assert!(!shown.contains(part), "{part} in {shown}, from {echo}");
        }
        assert!(shown.contains('…'), "{shown}");
    }
    assert_eq!(sanitizer().text("in short"), "in short", "what is so short is no secret");
}

#[test]
fn the_beginning_of_a_secret_at_the_end_of_a_text_is_removed() {
    for end in KEY.len() / 2..KEY.len() {
        let text = format!("cut off: {}", &KEY[..end]);
        assert_eq!(sanitizer().text(&text), "cut off: …", "{text}");
    }
    let name = "oauth-client-sandbox";
    assert_eq!(Sanitizer::without(["sandbox-api-key"]).text(name), name, "a name that begins like a key is no key");
}

/// The text with `between` after every so many characters.
fn split(text: &str, every: usize, between: &str) -> String {
    let chars: Vec<_> = text.chars().collect();
    chars.chunks(every).map(|part| part.iter().collect::<String>()).collect::<Vec<_>>().join(between)
}

#[test]
fn a_secret_is_removed_however_it_is_split_by_what_does_not_show() {
    let betweens = [
        "\r\n ",
        "\0",
        "<wbr>",
        "<WBR/>",
        "<br />",
        "\u{AD}",
        "\u{200B}",
        "\u{200C}",
        "\u{200D}",
        "\u{2060}",
        "\u{FE0F}",
        "-\n",
        "-",
        "\u{115F}",
        "\u{1160}",
        "\u{17B5}",
        "\u{3164}",
        "\u{FFA0}",
        "\u{E0100}",
        "\u{1D173}",
        "\u{2800}",
        "<b></b>",
        "<em>",
        "<wbr class=\"x\">",
        "<!-- -->",
        "&nbsp;",
        "&shy;",
        "&#8203;",
        "%20",
        "%0A",
        "\\n",
    ];
    for between in betweens {
        for every in [1, 5, 13] {
            let echo = format!("before {} after", split(KEY, every, between));
            assert_eq!(sanitizer().text(&echo), "before … after", "{echo:?}");
            for end in KEY.len() / 2..KEY.len() {
                let echo = format!("before {}", split(&KEY[..end], every, between));
                assert_eq!(sanitizer().text(&echo), "before …", "{echo:?}");
            }
        }
    }
    let cut = format!("before {}<wb", split(&KEY[..20], 5, "<wbr>"));
    assert_eq!(sanitizer().text(&cut), "before …");
    let folded = "é\n and <wbr> nothing else, 1 < 2";
    assert_eq!(sanitizer().text(folded), folded.replace('\n', " "), "a text without a secret keeps its layout");
}

#[test]
fn a_secret_is_removed_in_every_spelling_that_is_its_escape() {
    let each = |write: &dyn Fn(u8) -> String| KEY.bytes().map(write).collect::<String>();
    let first = |write: &str| format!("{write}{}", &KEY[1..]);
    let code = KEY.as_bytes()[0];
    let spellings = [
        each(&|byte| format!("%{byte:02X}")),
        each(&|byte| format!("%25{byte:02x}")),
        each(&|byte| format!("\\u{byte:04x}")),
        each(&|byte| format!("\\x{byte:02x}")),
        each(&|byte| format!("&#{byte};")),
        each(&|byte| format!("&#x{byte:x};")),
        each(&|byte| format!("{byte:02x}")),
        each(&|byte| format!("{byte:02X} ")),
        first(&format!("%{code:02x}")),
        first(&format!("\\u{code:04x}")),
        KEY.to_ascii_uppercase(),
        KEY.to_ascii_lowercase(),
        format!("<a href=\"{}\">", split(KEY, 4, "&shy;")),
    ];
    for spelling in spellings {
        let shown = sanitizer().text(&format!("before {} after", spelling.trim())).into_owned();
        assert!(shown == "before … after" || shown == "before <a href=\"…\"> after", "{spelling:?}: {shown:?}");
    }
    for text in ["100 % of 5 < 6 > 4 & more; \\u00zz %zz &#xzz; &;", "&amp;&amp;", "<", "&", "%", "\\", "é<é&é%é\\é"] {
        assert_eq!(sanitizer().text(text), text, "no escape, and no secret");
    }
}

#[test]
fn an_answer_claims_an_error_in_whichever_field_it_says_so_and_however_often() {
    let claims = |more: &str| {
        let body = format!("{{\"passed\":true,\"failed_checks\":[]{}{more}}}", if more.is_empty() { "" } else { "," });
        Answer { content: Content::Whole(body.into_bytes()), ..answer(b"") }.claims_an_error(&sanitizer())
    };
    for error in [
        r#""error":{"message":"db down"},"error":null"#,
        r#""error":"x","error":"x""#,
        r#""code":1,"code":1,"error":"x""#,
        r#""errorCode":"X","errorCode":"Y""#,
        r#""retryAfter":1,"retryAfter":2"#,
        r#""error":{"code":500}"#,
        r#""error":true"#,
        r#""error":1"#,
        r#""error":["db down"]"#,
        r#""error":{"msg":"db"}"#,
        r#""errors":["no"]"#,
        r#""errors":{"a":1}"#,
        r#""errorMessage":"x""#,
        r#""error_description":"x""#,
        r#""exception":"NullPointer""#,
        r#""success":false"#,
        r#""status":500,"message":"x""#,
        r#""code":"AE-WF-409-03""#,
        r#""errorCode":500"#,
    ] {
        assert!(claims(error), "{error}");
    }
    for fine in [
        "",
        r#""error":null"#,
        r#""error":"""#,
        r#""error":" ""#,
        r#""error":{}"#,
        r#""error":[],"errors":[]"#,
        r#""error":false"#,
        r#""code":0"#,
        r#""code":200"#,
        r#""success":true"#,
        r#""status":{"phase":"Failed"}"#,
        r#""status":200"#,
        r#""message":"fine""#,
        r#""status":"Running","detail":"x","data":{"a":1}"#,
    ] {
        assert!(!claims(fine), "{fine}");
    }
}

#[test]
fn control_and_bidirectional_characters_become_spaces() {
    let unwanted = "\u{0}\u{7}\u{8}\t\n\r\u{1b}\u{7f}\u{80}\u{85}\u{9b}\u{9f}\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\
                    \u{2066}\u{2069}\u{feff}\u{e0041}";
    let cleaned = sanitizer().text(unwanted).into_owned();
    assert!(cleaned.chars().all(|c| c == ' ') && cleaned.chars().count() == unwanted.chars().count(), "{cleaned:?}");
    let wanted = "Ünïcode 🚀 日本語 עברית العربية a‍b";
    assert_eq!(sanitizer().text(wanted), wanted, "letters of every script stay, and so does what joins them");
    assert!(!is_unwanted(' ') && is_unwanted('\u{1b}'));
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Sample {
    name: Text<16>,
    id: Exact,
    flag: Flag,
    inner: Lenient<Inner>,
}

#[derive(Debug, Default, Clone, Deserialize, PartialEq)]
#[serde(default)]
struct Inner {
    name: Text<16>,
}

impl PartialEq for Lenient<Inner> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

fn decoded(body: &str) -> Result<Sample, Problem> {
    decode::decode(body.as_bytes(), &sanitizer())
}

#[test]
fn a_value_of_another_kind_is_an_absent_one_and_loses_nothing_else() {
    for odd in ["null", "true", "1", "1.5", "\"\"", "[]", "[[{}]]", "{\"a\": {}}"] {
        for field in ["name", "id", "inner"] {
            let body = format!("{{\"{field}\": {odd}, \"flag\": true}}");
            assert_eq!(decoded(&body), Ok(Sample { flag: Flag(Some(true)), ..Sample::default() }), "{body}");
        }
    }
    assert_eq!(decoded("{\"flag\": \"true\"}"), Ok(Sample::default()));
}

#[test]
fn a_name_that_is_asked_for_again_is_exact_or_none() {
    let id = |id: &str| decoded(&json!({"id": id}).to_string()).expect("it decodes").id.0;
    assert_eq!(id("default/snow flake/1").as_deref(), Some("default/snow flake/1"));
    for odd in ["", "a\u{1b}b", "a\nb", KEY, &format!("x{KEY}"), &"x".repeat(1_025)] {
        assert_eq!(id(odd), None, "{odd:?}");
    }
    let name = decoded(&json!({"name": "é".repeat(100)}).to_string()).expect("it decodes").name.0.expect("a name");
    assert!(name.len() <= 16 && name.ends_with('…'), "{name}");
}

#[test]
fn no_problem_quotes_a_value() {
    let deep = format!("{{\"inner\": {}{}}}", "{\"inner\":".repeat(200), "}".repeat(200));
    for body in [
        "\"marker\"".to_owned(),
        "{\"name\": \"marker\", \"name\": \"marker\"}".to_owned(),
        "{\"marker\"".to_owned(),
        "{\"name\": marker}".to_owned(),
        "{\"name\": \"marker\"} marker".to_owned(),
        deep,
    ] {
        if let Err(Problem::Unexpected(problem)) = decoded(&body) {
            assert!(!problem.contains("marker"), "{problem}");
        }
    }
    assert_eq!(decoded("{\"flag\": true, \"flag\": false}"), Err(Problem::Unexpected("duplicate field `flag`".to_owned())));
}

/// A certificate names hosts, and a proxy's refusal may quote what it was sent.
#[test]
fn what_an_error_of_the_transport_quotes_is_clean_and_bounded() {
    let cause = std::io::Error::other(format!("peer said Bearer {KEY}\r\n\u{1b}[2J{}", "x".repeat(DESCRIPTION)));
    let told = describe(&std::io::Error::other(cause), &sanitizer());
    assert!(told.contains("peer said Bearer") && !told.contains("s3cr3t"), "{told}");
    assert!(!told.contains(char::is_control) && told.len() <= DESCRIPTION, "{told}");
}

#[test]
fn more_elements_than_any_answer_has_are_refused_and_ignored_ones_are_not_counted() {
    let elements = format!("[{}0]", "0,".repeat(200_000));
    let as_a_name = decoded(&format!("{{\"ignored\": {elements}}}"));
    assert_eq!(as_a_name, Ok(Sample::default()));
    assert!(
        matches!(decoded(&format!("{{\"name\": {elements}}}")), Err(Problem::Unexpected(problem)) if problem.contains("elements"))
    );
}

#[test]
fn what_is_kept_verbatim_is_bounded_and_clean() {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Kept {
        kept: Verbatim,
    }
    let kept = |value: &str| {
        let body = format!("{{\"kept\": {value}}}");
        decode::decode::<Kept>(body.as_bytes(), &sanitizer()).expect("it decodes").kept.into_value()
    };
    for small in [json!(null), json!([]), json!(["a", 1, 2.5, true, null, {"b": []}]), json!("a"), json!({"a": {"b": "c"}})] {
        assert_eq!(kept(&small.to_string()), small);
    }
    let deep = kept(&format!("{}{}", "[".repeat(120), "]".repeat(120)));
    let depth = std::iter::successors(Some(&deep), |value| value.get(0)).count();
    assert!(depth <= 18, "{depth}");
    let long = kept(&json!(vec!["x".repeat(1_000); 10_000]).to_string());
    let all = long.as_array().expect("a list");
    assert!(all.len() <= 257 && all.iter().all(|element| element.as_str().is_some_and(|text| text.len() <= 256)));
    let wide = kept(&format!("{{{}\"z\": 1}}", (0..1_000).map(|n| format!("\"{n}\": [1],")).collect::<Vec<_>>().concat()));
    assert!(wide.to_string().len() < 16 * 1024);
    let dirty = kept(&json!({"a\u{1b}[2J": format!("Bearer {KEY}\r\n")}).to_string()).to_string();
    assert!(!dirty.contains("s3cr3t") && !dirty.contains("\\u001b") && !dirty.contains("\\n"), "{dirty}");
}

#[test]
fn times_are_read_in_each_of_their_forms() {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct At {
        at: Moment,
    }
    let moment = |value: Value| {
        let body = json!({"at": value}).to_string();
        decode::decode::<At>(body.as_bytes(), &Sanitizer::default()).expect("it decodes").at.0
    };
    let at = Timestamp::from_second(1_767_225_600).ok();
    for value in [json!(1_767_225_600_123_i64), json!(1_767_225_600), json!("2026-01-01T00:00:00Z")] {
        assert_eq!(moment(value.clone()), at, "{value}");
    }
    for value in [json!(null), json!(0), json!(-1), json!(u64::MAX), json!(1e300), json!(""), json!("soon")] {
        assert_eq!(moment(value.clone()), None, "{value}");
    }
}

#[test]
fn a_wait_is_read_in_every_form_and_bounded() {
    let at = "2026-01-01T05:00:00Z".parse().expect("a time");
    for (text, seconds) in [
        ("7", Some(7.0)),
        (" 7 ", Some(7.0)),
        ("1.5", Some(1.5)),
        ("0", Some(0.0)),
        ("99999999999999999999999999", Some(3600.0)),
        ("1e400", Some(3600.0)),
        ("-1", None),
        ("NaN", None),
        ("Thu, 01 Jan 2026 05:00:30 GMT", Some(30.0)),
        ("Thursday, 01-Jan-26 05:00:30 GMT", Some(30.0)),
        ("Thu Jan  1 05:00:30 2026", Some(30.0)),
        ("Thu, 01 Jan 2026 04:00:00 GMT", Some(0.0)),
        ("Thu, 01 Jan 2099 05:00:30 GMT", Some(3600.0)),
        ("soon", None),
        ("", None),
    ] {
        assert_eq!(retry_after::header(text, at).map(|wait| wait.as_secs_f64()), seconds, "{text:?}");
    }
}

fn answer(body: &[u8]) -> Answer {
    Answer {
        status: 500,
        date: None,
        retry_after: None,
        labelled_as_page: false,
        content: Content::Whole(body.to_vec()),
        _budget: None,
    }
}

#[test]
fn a_refusal_is_read_from_every_field_that_a_service_uses() {
    let refusal = |body: Value| {
        let Refusal { code, message, retry_after } = answer(body.to_string().as_bytes()).refusal(&sanitizer(), true);
        (code, message, retry_after.map(|wait| wait.as_secs()))
    };
    let text = |text: &str| Some(text.to_owned());
    for (body, expected) in [
        (json!({"errorCode": "A-1", "errorMessage": "m"}), (text("A-1"), text("m"), None)),
        (json!({"code": 1006, "message": "m", "error": "e"}), (text("1006"), text("m"), None)),
        (json!({"error": "invalid_grant", "error_description": "d"}), (None, text("d"), None)),
        (json!({"error": {"code": "C", "message": "m", "retryAfter": "9"}}), (text("C"), text("m"), Some(9))),
        (json!({"detail": "d", "retry_after": 3}), (None, text("d"), Some(3))),
        (json!({"data": {"retry_after": 4}, "retryAfter": 2.9}), (None, None, Some(4))),
        (json!({"detail": {"retryAfter": 1e300}}), (None, None, Some(3600))),
        (json!({"retry_after": -3}), (None, None, None)),
        (json!({"retry_after": [1], "error": [], "detail": 5, "data": "x", "message": null}), (None, None, None)),
    ] {
        assert_eq!(refusal(body.clone()), expected, "{body}");
    }
    let (code, message, _) = refusal(json!({"code": "c".repeat(10_000), "message": format!("{KEY} {}", "m".repeat(10_000))}));
    assert!(code.is_some_and(|code| code.len() <= 128));
    assert!(message.is_some_and(|message| message.len() <= 4096 && !message.contains("s3cr3t")));
}

#[test]
fn a_body_is_told_apart_by_what_it_is() {
    let form = |body: &str| answer(body.as_bytes()).form();
    for (body, expected) in [
        ("", Form::Empty),
        (" \n", Form::Empty),
        ("{}", Form::Object),
        (" {\"a\": 1} ", Form::Object),
        ("null", Form::OtherJson),
        ("[]", Form::OtherJson),
        ("<html>", Form::Page),
        ("  <!doctype html>", Form::Page),
        ("{\"half\":", Form::Text),
        ("404 page not found", Form::Text),
    ] {
        assert_eq!(form(body), expected, "{body:?}");
    }
}
