//! DNS and nothing but DNS: no `/etc/hosts`, no search domains.
//!
//! Where an MCP server is led to us by an alias in `/etc/hosts`, that alias must not lead us to ourselves.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use hickory_resolver::Resolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::parse_resolv_conf;

/// Where the system says who answers.
const SYSTEM: &str = "/etc/resolv.conf";
/// The local service of systemd answers from `/etc/hosts` too; here it says whom it asks itself.
const BEHIND_THE_STUB: &str = "/run/systemd/resolve/resolv.conf";
const STUB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 53));

/// Asks DNS.
#[derive(Clone, Debug)]
pub struct Dns {
    servers: Servers,
}

#[derive(Clone, Debug)]
enum Servers {
    /// Those of the system, read anew for each question: they change while we run.
    System,
    /// These.
    Fixed(Vec<SocketAddr>),
}

impl Dns {
    /// The name servers of the system.
    pub fn system() -> Self {
        Self { servers: Servers::System }
    }

    /// These name servers.
    pub fn at(servers: &[SocketAddr]) -> Self {
        Self { servers: Servers::Fixed(servers.to_vec()) }
    }

    /// All addresses of `host`, which is a whole name.
    pub async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let mut name = Name::from_utf8(host).map_err(|error| error.to_string())?;
        name.set_fqdn(true);
        let (config, mut options) = self.configuration()?;
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = 0;
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        let found = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
        Ok(found.iter().collect())
    }

    fn configuration(&self) -> Result<(ResolverConfig, ResolverOpts), String> {
        let Servers::Fixed(servers) = &self.servers else { return of_system() };
        let servers = servers.iter().map(|server| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            NameServerConfig::new(server.ip(), true, connections)
        });
        Ok((ResolverConfig::from_parts(None, Vec::new(), servers.collect()), ResolverOpts::default()))
    }
}

fn of_system() -> Result<(ResolverConfig, ResolverOpts), String> {
    let read = |path: &str| {
        let text = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        parse_resolv_conf(text).map_err(|error| format!("{path}: {error}"))
    };
    let (config, options) = read(SYSTEM)?;
    let is_stub = config.name_servers().iter().all(|server| server.ip == STUB);
    if is_stub && Path::new(BEHIND_THE_STUB).exists() { read(BEHIND_THE_STUB) } else { Ok((config, options)) }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::net::UdpSocket;

    use super::*;

    /// A name server that knows one name; all names that it is asked for.
    async fn name_server(known: &'static str, address: [u8; 4]) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let (at, asked) = (socket.local_addr().expect("bound"), Arc::new(Mutex::new(Vec::new())));
        let names = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((_, from)) = socket.recv_from(&mut question).await {
                let (name, end) = name_of(&question);
                let is_known = name.eq_ignore_ascii_case(known);
                let is_address = is_known && question[end..end + 2] == [0, 1];
                let mut reply = question[..2].to_vec();
                let code = if is_known { 0x80 } else { 0x83 };
                reply.extend([0x81, code, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
                reply.extend(&question[12..end + 4]);
                if is_address {
                    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                    reply.extend(address);
                }
                names.lock().expect("sound").push(name.to_ascii_lowercase());
                let _ = socket.send_to(&reply, from).await;
            }
        });
        (at, asked)
    }

    /// The name in a question, and where it ends.
    fn name_of(question: &[u8]) -> (String, usize) {
        let (mut labels, mut at) = (Vec::new(), 12);
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            labels.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
            at = end;
        }
        (labels.join("."), at + 1)
    }

    #[tokio::test]
    async fn names_are_whole_and_no_domain_is_tried_behind_them() {
        let (server, asked) = name_server("api.example", [10, 0, 0, 7]).await;
        let dns = Dns::at(&[server]);
        assert_eq!(dns.look_up("api.example").await, Ok(vec!["10.0.0.7".parse().expect("one")]));
        assert!(dns.look_up("api").await.is_err() && dns.look_up("other.example").await.is_err());
        let mut asked = asked.lock().expect("sound").clone();
        asked.sort();
        asked.dedup();
        assert_eq!(asked, ["api", "api.example", "other.example"]);
    }

    /// Whatever stands in this machine's own file, DNS is asked.
    #[tokio::test]
    async fn the_file_of_hosts_does_not_count() {
        let file = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let lines = file.lines().map(|line| line.split('#').next().unwrap_or_default());
        let names = lines.flat_map(|line| line.split_whitespace().skip(1));
        let names: Vec<String> = names.filter(|name| !name.contains("localhost")).map(str::to_owned).collect();
        for name in names {
            let (server, asked) = name_server("unknown.example", [10, 0, 0, 7]).await;
            assert!(Dns::at(&[server]).look_up(&name).await.is_err(), "{name}");
            assert!(!asked.lock().expect("sound").is_empty(), "{name}");
        }
    }

    #[tokio::test]
    async fn without_a_name_server_there_is_no_answer() {
        assert!(Dns::at(&[]).look_up("api.example").await.is_err());
    }
}
