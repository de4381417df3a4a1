//! Reports of real tools, and hostile ones.

use super::*;

fn states(text: &str) -> String {
    let tests = read(text.as_bytes()).unwrap();
    tests.iter().map(|(name, test)| format!("{name}={:?}", test.state)).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_nextest_writes() {
    let text = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="0" uuid="x" timestamp="2026-01-01T00:00:00Z" time="0.1">
    <testsuite name="shop" tests="3" disabled="0" errors="0" failures="1">
        <testcase name="tests::adds" classname="shop" timestamp="2026" time="0.004"/>
        <testcase name="tests::fails" classname="shop" time="0.004">
            <failure message="thread &apos;tests::fails&apos; panicked at src/lib.rs:9:9" type="test failure with exit code 101">assertion `left == right` failed
  left: 1 &lt;
 right: 2</failure>
            <system-out>running 1 test</system-out><system-err>x</system-err>
        </testcase>
        <testcase name="tests::flaky" classname="shop" time="0.004">
            <flakyFailure message="once" type="x"><system-err>y</system-err></flakyFailure>
        </testcase>
    </testsuite>
</testsuites>"#;
    assert_eq!(states(text), "shop::tests::adds=Passed shop::tests::fails=Failed shop::tests::flaky=Passed");
    let tests = read(text.as_bytes()).unwrap();
    let message = &tests["shop::tests::fails"].message;
    assert!(message.starts_with("thread 'tests::fails' panicked at src/lib.rs:9:9\nassertion"), "{message}");
    assert!(message.contains("left: 1 <"), "{message}");
}

#[test]
fn what_pytest_writes() {
    let text = r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="2" tests="5" time="0.05" hostname="h"><testcase classname="tests.test_a" name="test_ok" time="0.001" /><testcase classname="tests.test_a" name="test_bad[1-2]" time="0.001"><failure message="AssertionError: assert 1 == 2">def test_bad():</failure></testcase><testcase classname="tests.test_a" name="test_skip" time="0.0"><skipped type="pytest.skip" message="no">x</skipped></testcase><testcase classname="tests.test_a" name="test_xfail" time="0.0"><skipped type="pytest.xfail" message="" /></testcase><testcase classname="" name="tests.test_b" time="0.0"><error message="collection failure"><![CDATA[ImportError: <x>]]></error></testcase></testsuite></testsuites>"#;
    assert_eq!(
        states(text),
        "pytest::tests.test_b=Failed tests.test_a::test_bad[1-2]=Failed tests.test_a::test_ok=Passed \
         tests.test_a::test_skip=Skipped tests.test_a::test_xfail=Skipped"
    );
    let tests = read(text.as_bytes()).unwrap();
    assert_eq!(tests["pytest::tests.test_b"].message, "collection failure\nImportError: <x>");
}

#[test]
fn the_worst_of_what_is_said_counts() {
    let case = |inner: &str| format!("<testsuite name='s'><testcase name='a'>{inner}</testcase></testsuite>");
    for inner in ["<failure/><skipped/>", "<skipped/><error/>", "<failure/>", "<error>x</error><system-out/>"] {
        assert_eq!(states(&case(inner)), "s::a=Failed", "{inner}");
    }
    assert_eq!(
        states("<testsuite name='s'><testcase name='a'><error/></testcase><testcase name='a'/></testsuite>"),
        "s::a=Failed"
    );
    assert_eq!(
        states("<testsuite name='s'><testcase name='a'/><testcase name='a'><error/></testcase></testsuite>"),
        "s::a=Failed"
    );
    assert_eq!(
        states("<testsuite name='s'><error message='set-up'/><testcase name='a'/></testsuite>"),
        "s=Failed s::a=Passed"
    );
    let nested =
        "<testsuites><testsuite name='o'><testsuite name='i'><testcase name='a'/></testsuite></testsuite></testsuites>";
    assert_eq!(states(nested), "i::a=Passed");
    assert_eq!(states("<testsuite name='g'><testcase name='a' status='notrun'/></testsuite>"), "g::a=Skipped");
}

#[test]
fn hostile_and_broken_reports_are_refused() {
    let laughs = "<!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;&lol;&lol;\">]>\
                  <testsuite name='s'><testcase name='&lol2;'/></testsuite>";
    let outside = "<!DOCTYPE x [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><testsuite><testcase name='a'/></testsuite>";
    let deep = format!("<testsuites>{}", "<testsuite>".repeat(100_000));
    let many = format!("<testsuite {}/>", (0..100).map(|n| format!("a{n}='x' ")).collect::<String>());
    let wide = format!("<testsuite>{}</testsuite>", "<p/>".repeat(MAX_ELEMENTS));
    let tests: String = (0..=MAX_TESTS).map(|n| format!("<testcase name='{n}'/>")).collect();
    let full = format!("<testsuite>{tests}</testsuite>");
    for (text, why) in [
        (laughs, "document type"),
        (outside, "document type"),
        ("<testsuite><testcase name='&lol;'/></testsuite>", "attribute"),
        ("<testsuite><testcase name='a'><failure>&lol;</failure></testcase></testsuite>", "entity"),
        (&deep, "nested"),
        (&many, "attributes"),
        (&wide, "elements"),
        (&full, "tests"),
        ("", "ends in the middle"),
        ("<testsuite><testcase name='a'/>", "ends in the middle"),
        ("<testsuite></testsuites>", "no XML"),
        ("</testsuite>", "no XML"),
        ("<testsuite/><testsuite/>", "not one"),
        ("<html><testcase name='a'/></html>", "not one"),
        ("<testsuite><testcase/></testsuite>", "without a name"),
        ("<testsuite><testcase name='a'><testcase name='b'/></testcase></testsuite>", "where none can be"),
        ("<testsuite><properties><testcase name='b'/></properties></testsuite>", "where none can be"),
        ("<testsuites><testcase name='a'/></testsuites>x", "outside"),
        ("<testsuite failures='2'><testcase name='a'/></testsuite>", "counts 2"),
        ("<testsuite name='a' name='b'/>", "twice"),
        ("{\"tests\": 3}", "outside"),
    ] {
        let error = read(text.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{:.80}: {error}", text);
    }
    assert_eq!(read(b"<testsuite name='\xff'/>").unwrap_err(), "is not UTF-8");
    assert!(read("<?xml version='1.0' encoding='utf-16'?><testsuite/>".as_bytes()).unwrap().is_empty());
}

#[test]
fn names_and_messages_are_bounded() {
    let name = "x".repeat(100_000);
    let text = format!(
        "<testsuite><testcase classname='c' name='{name}'><failure message='{name}'>{name}</failure></testcase></testsuite>"
    );
    let tests = read(text.as_bytes()).unwrap();
    let (key, test) = tests.iter().next().unwrap();
    assert!(key.chars().count() <= 300 && test.message.chars().count() <= MAX_TEXT + 1, "{}", key.len());
    let other = read(text.replace("name='x", "name='y").as_bytes()).unwrap();
    assert_ne!(other.keys().next(), tests.keys().next());
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _any = read(&bytes);
    }

    #[test]
    fn no_pieces_of_a_report_make_it_panic(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "<testsuites>", "<testsuite name='s'>", "</testsuite>", "</testsuites>", "<testcase name='a'>", "<testcase name='b'/>",
            "</testcase>", "<failure>", "</failure>", "<error/>", "<skipped/>", "&lt;", "&x;", "x", "<![CDATA[", "]]>", "<!--", "-->",
        ]), 0..20),
    ) {
        let _any = read(pieces.concat().as_bytes());
    }
}
