//! The variables that bring a program's calls to the egress listener, and make it trust the certificates that it meets there.

use std::path::Path;

/// Files in one directory. What Sidekey signs with, for whoever wants nothing else.
pub const CERTIFICATES: &str = "sidekey-ca.pem";
/// The same, the roots of the system, and what the caller trusts.
pub const ALL_CERTIFICATES: &str = "ca-bundle.pem";
/// The same for Java.
pub const JAVA_CERTIFICATES: &str = "ca-bundle.p12";
/// For Node.js.
pub const PRELOAD: &str = "preload.cjs";

/// What the variables are made of.
pub struct Facts<'a> {
    /// Host and port of the egress listener.
    pub egress: &'a str,
    /// The handle, or what stands for it.
    pub handle: &'a str,
    /// Where the files are.
    pub directory: &'a Path,
    /// Which hosts are intercepted.
    pub hosts: &'a str,
    /// What the caller says to Node.js and Java already.
    pub inherited: &'a dyn Fn(&str) -> Option<String>,
}

/// Names and values, in the order in which they are shown.
pub fn variables(facts: &Facts<'_>) -> Vec<(String, String)> {
    // Some clients send no credential that consists of a name alone.
    let proxy = format!("http://{}:x@{}", facts.handle, facts.egress);
    let file = |name: &str| facts.directory.join(name).display().to_string();
    let bundle = file(ALL_CERTIFICATES);
    let (host, port) = facts.egress.rsplit_once(':').unwrap_or((facts.egress, "8701"));
    let preload = format!("--require {}", quoted(&file(PRELOAD), '"'));
    // Java takes no credential from its settings: its programs present the handle as their token.
    let java = format!(
        "-Djavax.net.ssl.trustStore={} -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword={} \
         -Dhttps.proxyHost={host} -Dhttps.proxyPort={port}",
        quoted(&file(JAVA_CERTIFICATES), '\''),
        crate::authority::bundle::TRUST_STORE_PASSWORD,
    );
    let added = |name: &str, ours: String| match (facts.inherited)(name).filter(|others| !others.is_empty()) {
        Some(others) => format!("{others} {ours}"),
        None => ours,
    };
    let none = "127.0.0.1,localhost,::1";
    [
        ("HTTPS_PROXY", proxy.clone()),
        ("HTTP_PROXY", proxy.clone()),
        ("https_proxy", proxy.clone()),
        ("http_proxy", proxy),
        ("NO_PROXY", none.to_owned()),
        ("no_proxy", none.to_owned()),
        ("NODE_USE_ENV_PROXY", "1".to_owned()),
        ("NODE_EXTRA_CA_CERTS", bundle.clone()),
        ("NODE_OPTIONS", added("NODE_OPTIONS", preload)),
        ("SIDEKEY_HOSTS", facts.hosts.to_owned()),
        ("SSL_CERT_FILE", bundle.clone()),
        ("REQUESTS_CA_BUNDLE", bundle.clone()),
        ("HTTPLIB2_CA_CERTS", bundle.clone()),
        ("CURL_CA_BUNDLE", bundle.clone()),
        ("GIT_SSL_CAINFO", bundle),
        ("JAVA_TOOL_OPTIONS", added("JAVA_TOOL_OPTIONS", java)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn quoted(path: &str, quote: char) -> String {
    if path.contains(' ') { format!("{quote}{path}{quote}") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, directory: &str) -> String {
        let facts = Facts {
            egress: "127.0.0.1:8701",
            handle: "sidekey_h_x",
            directory: Path::new(directory),
            hosts: "api.example",
            inherited: &|name| (name == "NODE_OPTIONS").then(|| "--trace-warnings".to_owned()),
        };
        variables(&facts).into_iter().find(|(known, _)| known == name).expect("set").1
    }

    #[test]
    fn the_handle_is_the_proxy_credential_and_options_are_added_to() {
        assert_eq!(value("https_proxy", "/d"), "http://sidekey_h_x:x@127.0.0.1:8701");
        assert_eq!(value("NODE_OPTIONS", "/d"), "--trace-warnings --require /d/preload.cjs");
        assert_eq!(value("NODE_OPTIONS", "/a b"), "--trace-warnings --require \"/a b/preload.cjs\"");
        assert!(value("JAVA_TOOL_OPTIONS", "/d").contains("-Dhttps.proxyPort=8701"));
        assert!(!value("JAVA_TOOL_OPTIONS", "/d").contains("sidekey_h_x"), "Java shows its options when it starts");
    }
}
