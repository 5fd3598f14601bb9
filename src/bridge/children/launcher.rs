//! Gives a child what `sidekey run` gives a program, and starts it: a handle of its own, certificates, a directory, and a user
//! or namespaces of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use super::process::{Belongings, Pipes, Process, Spawner};
use crate::authority::Authority;
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::config::Outline;
use crate::launch::bounds::Bounds;
use crate::launch::confined::Confinement;
use crate::launch::directory::RunDirectory;
use crate::launch::own_user::OwnUser;
use crate::launch::plan::{Plan, Values, Wanted};
use crate::launch::surroundings::{hidden, kept, own_home, place_of_siblings, plain};
use crate::launch::variables::{Facts, variables};
use crate::model::connection::Captured;
use crate::model::handle;
use crate::model::names::{Label, ProviderName, Subject};
use crate::model::server::McpServer;
use crate::model::stdio_server::StdioServer;

/// Starts children.
pub struct Launcher {
    /// What the configuration says of secrets, providers and recipes.
    pub outline: Arc<Outline>,
    /// The providers by name.
    pub providers: BTreeMap<ProviderName, Arc<Provider>>,
    /// Certificates for the hosts of providers.
    pub authority: Arc<Authority>,
    /// The Sidekey that children are started through.
    pub sidekey: PathBuf,
    /// Where children reach the egress listener, once that is known.
    pub egress: Arc<OnceLock<SocketAddr>>,
}

/// For whom a child is started.
pub struct Order {
    /// Of which server.
    pub server: Arc<McpServer>,
    /// How it is started.
    pub stdio: Arc<StdioServer>,
    /// On whose behalf.
    pub subject: Subject,
    /// Its handle.
    pub handle: Secret,
    /// What was captured when the subject connected to the recipe's provider.
    pub captured: Captured,
}

impl Launcher {
    /// Starts a child. The error says why it cannot be, for the log.
    pub async fn launch(self: &Arc<Self>, spawner: &Spawner, order: Order) -> Result<(Process, Pipes), String> {
        let this = Arc::clone(self);
        let prepared = tokio::task::spawn_blocking(move || this.prepare(&order)).await;
        let (command, belongings) = prepared.map_err(|error| error.to_string())??;
        let child = spawner.spawn(command).await.map_err(|error| error.to_string())?;
        Process::new(child, belongings).map_err(|error| error.to_string())
    }

    /// The recipe's provider among those of the server, and with which of several connections there.
    pub fn recipes_provider(&self, server: &McpServer, stdio: &StdioServer) -> Option<(ProviderName, Label)> {
        let plan = self.plan(server, stdio, &"nobody".parse().ok()?).ok()?;
        let (name, _) = plan.provider?;
        Some((name.clone(), server.label(name)))
    }

    /// Why children of a server cannot be kept apart here, if so.
    pub async fn cannot_isolate(&self, spawner: &Spawner) -> Option<String> {
        let mut command = match rustix::process::geteuid().is_root() {
            true => match OwnUser::take() {
                Ok(user) => {
                    Confinement::OwnUser(user.number).bounded_command(&self.sidekey, &Bounds::default(), &probe())
                }
                Err(error) => return Some(error.to_string()),
            },
            false => {
                let own = std::env::temp_dir();
                let namespaces = Confinement::Namespaces { hide: Vec::new(), keep: Vec::new(), own };
                namespaces.bounded_command(&self.sidekey, &Bounds::default(), &probe())
            }
        };
        command.current_dir("/").stdin(Stdio::null());
        // On the thread that will start the children: what tries it out must not outlive it either.
        let child = spawner.spawn(command).await;
        let output = match child {
            Ok(child) => tokio::task::spawn_blocking(move || child.wait_with_output()).await,
            Err(error) => return Some(error.to_string()),
        };
        match output {
            Ok(Ok(output)) if output.status.code() != Some(1) => None,
            Ok(Ok(output)) => Some(in_configuration(String::from_utf8_lossy(&output.stderr).trim())),
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    fn plan(&self, server: &McpServer, stdio: &StdioServer, subject: &Subject) -> Result<Plan<'_>, String> {
        let wanted = Wanted {
            subject: Some(subject.clone()),
            recipe: stdio.recipe.clone(),
            provider: server.providers.iter().cloned().collect(),
            label: Label::default(),
        };
        Plan::make(&wanted, &self.outline).map_err(|error| error.to_string())
    }

    fn prepare(&self, order: &Order) -> Result<(Command, Belongings), String> {
        let Order { server, stdio, subject, .. } = order;
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let plan = self.plan(server, stdio, subject)?;
        let egress = self.egress.get().ok_or("nothing listens for children yet")?;
        let egress = reachable(*egress).to_string();
        let settings = &stdio.children;
        let user = match settings.isolation && rustix::process::geteuid().is_root() {
            true => Some(OwnUser::take().map_err(|error| failed(&error))?),
            false => None,
        };
        let place = if settings.isolation && user.is_none() { place_of_siblings(&self.outline) } else { None };
        let number = user.as_ref().map(|user| user.number);
        let directory = RunDirectory::with_home(&self.sidekey, place.as_deref(), number);
        let directory = directory.map_err(|error| failed(&error))?;
        let extra = |name: &str| stdio.environment.get(name).cloned();
        directory.equip(&self.authority.bundle(), &extra).map_err(|error| failed(&error))?;
        // A handle looks like the tokens of the provider that it is for, where that is one.
        let only = plan.provider.map(|(name, _)| name).or(server.providers.iter().next());
        let only = only.filter(|_| plan.provider.is_some() || server.providers.len() == 1);
        let prefix = only.and_then(|name| self.providers.get(name)).map(|provider| provider.handle_prefix.as_str());
        let presented = handle::with_prefix(prefix.unwrap_or_default(), &order.handle);
        let files = directory.files().display().to_string();
        let values = Values {
            handle: presented.expose(),
            egress: &egress,
            provider: plan.provider,
            captured: &order.captured,
            files: &files,
        };
        for (name, content) in plan.files(&values).map_err(|error| failed(&error))? {
            directory.write_file(&name, &content).map_err(|error| failed(&error))?;
        }
        let program: Vec<OsString> = match stdio.command.as_slice() {
            [] => plan.command(&values).map_err(|error| failed(&error))?.into_iter().map(OsString::from).collect(),
            command => command.iter().map(OsString::from).collect(),
        };
        let environment = self.environment(order, &plan, &values, &directory, user.is_some());
        let confinement = match number {
            Some(user) => Confinement::OwnUser(user),
            None if !settings.isolation => Confinement::None,
            None => Confinement::Namespaces {
                hide: hidden(&self.outline),
                keep: kept(&self.outline),
                own: directory.path().to_owned(),
            },
        };
        let bounds = bounds(stdio, directory.path());
        let mut command = confinement.bounded_command(&self.sidekey, &bounds, &program);
        command.env_clear().envs(environment.map_err(|error| failed(&error))?);
        command.current_dir(directory.path().join("home"));
        Ok((command, Belongings { directory, user, sidekey: self.sidekey.clone() }))
    }

    fn environment(
        &self,
        order: &Order,
        plan: &Plan<'_>,
        values: &Values<'_>,
        directory: &RunDirectory,
        has_user: bool,
    ) -> Result<BTreeMap<OsString, OsString>, crate::launch::LaunchError> {
        let stdio = &order.stdio;
        let asked = plan.recipe.iter().flat_map(|recipe| recipe.ask.keys()).map(String::as_str);
        let mut environment = plain(asked);
        own_home(&mut environment, directory.path());
        if !has_user {
            environment.remove(OsString::from("USER").as_os_str());
            environment.remove(OsString::from("LOGNAME").as_os_str());
        }
        let given = |name: &str| stdio.environment.get(name).cloned();
        let hosts = self.authority.hosts().iter().cloned().collect::<Vec<_>>().join(",");
        let facts = Facts {
            egress: values.egress,
            handle: order.handle.expose(),
            directory: directory.path(),
            hosts: if stdio.children.strict { "*" } else { &hosts },
            inherited: &given,
        };
        let extra = stdio.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
        let set = extra.chain(variables(&facts)).chain(plan.environment(values)?);
        environment.extend(set.map(|(name, value)| (name.into(), value.into())));
        Ok(environment)
    }
}

/// What is started to see whether anything can be.
fn probe() -> [OsString; 1] {
    ["true".into()]
}

/// The way out that operators have, where a command's way out was named.
fn in_configuration(why: &str) -> String {
    let why = why.strip_prefix("error: ").unwrap_or(why);
    why.replace("--no-isolation", "isolation = false in [servers.NAME.children]")
}

fn bounds(stdio: &StdioServer, directory: &Path) -> Bounds {
    let settings = &stdio.children;
    Bounds {
        memory: Some(settings.limits.memory),
        cpu_time: Some(settings.limits.cpu_time.as_secs().max(1)),
        // Without a user or a namespace of its own it would share the number with Sidekey and others.
        processes: settings.isolation.then_some(settings.limits.processes.into()),
        write_in: settings.isolation.then(|| directory.to_owned()),
        ephemeral_ports_alone: settings.isolation,
        streams_alone: true,
    }
}

/// Where processes on this machine reach a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, address.port()).into() } else { address }
}
