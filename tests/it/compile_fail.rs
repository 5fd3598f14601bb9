//! What must not compile: printing, serializing and comparing secrets.

#[test]
fn secrets_are_not_handled_carelessly() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
