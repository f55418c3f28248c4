//! Several gateways of a tenant on a real cluster: every request reaches the home of its caller through any of them, limits hold for
//! all of them together, and calls go on while gateways come, end and are cut off.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic fails the test")]

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use mcp_fleet_crds::condition::{ConditionType, is_true};
use mcp_fleet_crds::{MCPPrincipal, MCPTenant};
use mcp_fleet_e2e::faults::{Cut, leader, unique};
use mcp_fleet_e2e::{
    Answer, Caller, FaultTenant, GATEWAYS, NAMESPACE, OPERATOR, OPERATORS, RUNTIME, address, marks, until,
};
use serde_json::{Value, json};

/// Principals, so many that each of three gateways is the home of some.
const PRINCIPALS: usize = 8;

/// Sets the number of gateways as `kubectl scale` does, and waits until there are so many.
async fn scale(tenant: &FaultTenant, replicas: usize) -> Vec<Gateway> {
    tenant.scale(replicas).await.unwrap();
    gateways(tenant, replicas).await
}

/// A pod of the gateway.
#[derive(Clone, Debug)]
struct Gateway {
    name: String,
    address: IpAddr,
}

/// Waits until a tenant has this many gateways, all of them ready, and its status lists them. Returns them.
async fn gateways(tenant: &FaultTenant, replicas: usize) -> Vec<Gateway> {
    let tenants: Api<MCPTenant> = Api::all(tenant.client.clone());
    until(format!("{replicas} gateways"), Duration::from_secs(120), || async {
        let pods = tenant.pods(RUNTIME, GATEWAYS).await?;
        let scale = tenants.get_scale(NAMESPACE).await?;
        let status = tenants.get(NAMESPACE).await?.status.unwrap_or_default();
        let counted = scale.status.map(|status| status.replicas) == i32::try_from(replicas).ok();
        let ready = pods.len() == replicas && pods.iter().all(is_ready) && status.gateways.len() == replicas;
        let all = pods.iter().filter_map(|pod| Some(Gateway { name: pod.name_any(), address: address(pod)? }));
        let all: Vec<_> = all.collect();
        Ok((ready && counted && is_true(&status.conditions, ConditionType::Ready)).then_some(all))
    })
    .await
    .unwrap()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Creates a principal with these limits, and returns a caller with its credential.
async fn principal(tenant: &FaultTenant, name: &str, limits: &Value) -> Caller {
    let spec = json!({"scopeRefs": [{"name": "hostile-all"}, {"name": "quiet-all"}], "limits": limits});
    let object = json!({"metadata": {"name": name}, "spec": spec});
    tenant.apply_one::<MCPPrincipal>(Some(NAMESPACE), object).await.unwrap();
    let caller = tenant.wait_for_caller(name).await.unwrap();
    let principals: Api<MCPPrincipal> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    until("the principal to be ready", Duration::from_secs(60), || async {
        let status = principals.get(name).await?.status.unwrap_or_default();
        Ok(is_true(&status.conditions, ConditionType::Ready).then_some(()))
    })
    .await
    .unwrap();
    caller
}

async fn principals(tenant: &FaultTenant) -> Vec<Caller> {
    let limits = json!({"callsPerMinute": 6000, "burst": 100, "maxConcurrentCalls": 20});
    let mut all = Vec::new();
    for number in 0..PRINCIPALS {
        all.push(principal(tenant, &format!("homed-{number}"), &limits).await);
    }
    all
}

/// Calls until a call is answered.
async fn until_answered(caller: &Caller, what: &str) {
    until(format!("a call to be answered {what}"), Duration::from_secs(60), || async {
        match caller.call_with_word("quiet", "echo", what).await {
            Answer::Text(text) if text == what => Ok(Some(())),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();
}

/// Returns the sum of a metric of a gateway over all series with this label.
async fn metric(gateway: &Gateway, name: &str, label: &str) -> usize {
    let text = reqwest::get(format!("http://{}:9090/metrics", gateway.address)).await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_can_be_scaled_while_agents_call() {
    let tenant = FaultTenant::ready().await.unwrap();
    scale(&tenant, 1).await;
    let callers = principals(&tenant).await;
    let three = scale(&tenant, 3).await;
    for caller in &callers {
        for gateway in &three {
            until_answered(&caller.through(gateway.address).unwrap(), &gateway.name).await;
        }
    }
    // From now on, nobody is refused: all gateways know the homes.
    let mut forwarded = 0;
    for gateway in &three {
        let before = metric(gateway, "mcp_pod_forwarded_requests_total", "answered").await;
        for caller in &callers {
            let answer = caller.through(gateway.address).unwrap().call_with_word("quiet", "echo", "all").await;
            assert!(matches!(&answer, Answer::Text(text) if text == "all"), "{answer:?}");
        }
        let after = metric(gateway, "mcp_pod_forwarded_requests_total", "answered").await;
        assert!(after > before, "{gateway:?} is the home of all");
        forwarded += after - before;
    }
    // Each principal has one home, and two gateways forward.
    assert_eq!(forwarded, 2 * PRINCIPALS);

    // Fewer again: a client that has connections to those that end is answered at once by the one that stays.
    let agents: Vec<_> = callers.into_iter().enumerate().map(|(number, caller)| Agent::start(caller, number)).collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let one = scale(&tenant, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut words = HashSet::new();
    for agent in agents {
        let done = agent.stop().await;
        println!("while two of three gateways were drained: {done}");
        // A connection may be closed in the moment in which a request is sent on it.
        assert!(done.answered > 20 && done.longest_gap < Duration::from_secs(5), "{done}");
        assert!(done.is_refused_at_most(2), "{done}");
        words.extend(done.words);
    }
    assert_eq!(one.len(), 1);
    made_once(&words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_a_principal_are_exact_over_three_gateways() {
    let tenant = FaultTenant::ready().await.unwrap();
    let limits = json!({"callsPerMinute": 300, "burst": 20, "maxConcurrentCalls": 3});
    let caller = principal(&tenant, "limited", &limits).await;
    let three = scale(&tenant, 3).await;
    let through: Vec<Caller> = three.iter().map(|gateway| caller.through(gateway.address).unwrap()).collect();
    for caller in &through {
        until_answered(caller, "before").await;
    }
    // Two callers at each gateway, as fast as they can.
    let began = Instant::now();
    let call_all = |caller: Caller| async move {
        let (mut admitted, mut refused) = (0_u32, BTreeMap::<String, u32>::new());
        while began.elapsed() < Duration::from_secs(10) {
            match caller.call_with_word("quiet", "echo", "word").await {
                Answer::Text(_) => admitted += 1,
                Answer::Refused(reason) => *refused.entry(reason).or_default() += 1,
                // Too many refused requests.
                other => *refused.entry(format!("{other:?}").chars().take(60).collect()).or_default() += 1,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (admitted, refused)
    };
    let callers = three.iter().chain(&three).map(|gateway| caller.through(gateway.address).unwrap());
    let done = futures::future::join_all(callers.map(call_all)).await;
    let took = began.elapsed().as_secs_f64();
    let admitted: u32 = done.iter().map(|(admitted, _)| admitted).sum();
    // The burst, and five a second.
    let (least, most) = (0.8 * 5.0 * 10.0, 20.0 + 5.0 * took + 1.0);
    println!("{admitted} calls of at most {most:.1} in {took:.1} s: {done:?}");
    assert!(f64::from(admitted) <= most && f64::from(admitted) >= least, "{admitted} of {least} to {most}");

    // Three calls in flight, wherever they come from.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let calls = (0..9).map(|number| {
        let caller = caller.through(three[number % 3].address).unwrap();
        async move { caller.call_with_word("quiet", "hang", "").await }
    });
    let answers = futures::future::join_all(calls).await;
    let refused = answers.iter().filter(|answer| answer.reason() == Some("concurrency_limited")).count();
    assert_eq!(refused, 6, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_when_gateways_are_killed_drained_and_cut_off() {
    let tenant = FaultTenant::ready().await.unwrap();
    let callers = principals(&tenant).await;
    scale(&tenant, 3).await;
    for caller in &callers {
        until_answered(caller, "before").await;
    }
    for fault in ["drained", "killed", "cut off from the operator", "cut off from the other gateways"] {
        let three = gateways(&tenant, 3).await;
        let mut agents = Vec::new();
        for number in 0..PRINCIPALS {
            // New connections, which the Service divides among the gateways.
            let caller = tenant.caller(&format!("homed-{number}")).await.unwrap();
            agents.push(Agent::start(caller, number));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let victim = &three[0];
        match fault {
            "drained" => delete(&tenant, &victim.name).await,
            "killed" => tenant.kill_pod(RUNTIME, &victim.name).await.unwrap(),
            _ => {
                let others = if fault.ends_with("operator") {
                    tenant.addresses(OPERATOR, OPERATORS).await
                } else {
                    three[1..].iter().map(|gateway| gateway.address).collect()
                };
                let cut = Cut::between(victim.address, &others);
                tokio::time::sleep(Duration::from_secs(25)).await;
                drop(cut);
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        gateways(&tenant, 3).await;
        let mut words = HashSet::new();
        for agent in agents {
            let done = agent.stop().await;
            println!("{fault}: {done}");
            let most = match fault {
                "drained" => 4,
                // Until the pod is gone from the API server, or its lease has ended.
                "killed" | "cut off from the operator" => 25,
                // Its agents are refused while it cannot reach their homes.
                _ => 40,
            };
            assert!(done.answered > 10 && done.longest_gap < Duration::from_secs(most), "{fault}: {done}");
            assert!(fault != "drained" || done.is_refused_at_most(1), "{done}");
            words.extend(done.words);
        }
        made_once(&words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_of_a_tenant_holds_while_its_leader_and_gateways_are_killed() {
    const A_SECOND: f64 = 10.0;
    // A sixth of the calls of a minute may be made at once.
    const AT_ONCE: f64 = 100.0;
    let tenant = FaultTenant::ready().await.unwrap();
    let callers = principals(&tenant).await;
    scale(&tenant, 3).await;
    set_rate(&tenant, &json!(600)).await;
    let limited = tenant.wait_for_caller("homed-0").await.unwrap();
    until("the rate to be enforced", Duration::from_secs(30), || async {
        let refused = limited.call_with_word("quiet", "echo", "").await;
        Ok((refused.reason() == Some("tenant_rate_limited")).then_some(()))
    })
    .await
    .unwrap();
    let (admitted, began) = (Arc::new(AtomicU32::new(0)), Instant::now());
    let refused = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let mut storm = tokio::task::JoinSet::new();
    for caller in callers {
        let (admitted, refused) = (Arc::clone(&admitted), Arc::clone(&refused));
        storm.spawn(async move {
            loop {
                let answer = caller.call_with_word("quiet", "echo", "word").await;
                if let Answer::Text(_) = answer {
                    admitted.fetch_add(1, Ordering::Relaxed);
                } else {
                    let why = answer.reason().map_or_else(|| format!("{answer:?}"), str::to_owned);
                    *refused.lock().unwrap().entry(why.chars().take(100).collect()).or_default() += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
    }
    let check = |after: &str| {
        let (done, most) =
            (f64::from(admitted.load(Ordering::Relaxed)), AT_ONCE + 10.0 + A_SECOND * began.elapsed().as_secs_f64());
        let refused = std::mem::take(&mut *refused.lock().unwrap());
        println!("after {after}: {done} calls of at most {most:.0}; refused: {refused:?}");
        assert!(done <= most, "{done} calls of {most} after {after}");
        done
    };
    for fault in ["nothing", "the leader was killed", "a gateway was killed", "all were killed"] {
        let three = tenant.pods(RUNTIME, GATEWAYS).await.unwrap();
        match fault {
            "nothing" => {}
            "the leader was killed" => tenant.kill_pod(OPERATOR, &leader(&tenant.client).await).await.unwrap(),
            "a gateway was killed" => tenant.kill_pod(RUNTIME, &three[0].name_any()).await.unwrap(),
            _ => {
                for gateway in &three {
                    tenant.kill_pod(RUNTIME, &gateway.name_any()).await.unwrap();
                }
                tenant.kill_pod(OPERATOR, &leader(&tenant.client).await).await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        // Most of the rate is used again, and never more.
        until(format!("the rate to be used after {fault}"), Duration::from_secs(60), || async {
            let (before, at) = (check(fault), Instant::now());
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok((check(fault) - before >= 0.8 * A_SECOND * at.elapsed().as_secs_f64()).then_some(()))
        })
        .await
        .unwrap();
        assert!(storm.try_join_next().is_none(), "a caller has ended");
    }
    storm.shutdown().await;
    set_rate(&tenant, &Value::Null).await;
}

/// Sets the calls per minute of the tenant.
async fn set_rate(tenant: &FaultTenant, calls_per_minute: &Value) {
    let tenants: Api<MCPTenant> = Api::all(tenant.client.clone());
    let patch = Patch::Merge(json!({"spec": {"traffic": {"callsPerMinute": calls_per_minute}}}));
    tenants.patch(NAMESPACE, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn only_gateways_reach_the_port_of_gateways() {
    let tenant = FaultTenant::ready().await.unwrap();
    let gateway = scale(&tenant, 2).await.remove(0);
    // A client of the tenant, which may connect to the port of clients.
    let image = tenant.python_image().await.unwrap();
    let container =
        json!({"name": "client", "image": image, "command": ["python3", "-c", "import time; time.sleep(600)"]});
    let spec = json!({"containers": [container], "terminationGracePeriodSeconds": 0});
    let client = json!({"metadata": {"name": "client"}, "spec": spec});
    tenant.apply_one::<Pod>(Some(NAMESPACE), client).await.unwrap();
    // The node may connect, so that there is something to reach.
    until("the gateway to listen for others", Duration::from_secs(30), || async {
        Ok(Some(tokio::net::TcpStream::connect((gateway.address, 8444)).await?))
    })
    .await
    .unwrap();
    let connect = async |namespace: &str, pod: &str, port: u16| {
        let script = format!("import socket; socket.create_connection(('{}', {port}), 3)", gateway.address);
        // Run as an administrator, because the sandbox of a tool server has no network at all.
        let arguments = ["exec", "--namespace", namespace, pod, "--", "python3", "-c", &script];
        let output = std::process::Command::new("kubectl").args(arguments).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        let blocked = error.contains("timed out") || error.contains("refused");
        anyhow::ensure!(output.status.success() || blocked, "{pod} to port {port}: {output:?}");
        Ok(output.status.success())
    };
    until("the client to connect", Duration::from_secs(60), || async {
        Ok(connect(NAMESPACE, "client", 8443).await?.then_some(()))
    })
    .await
    .unwrap();
    assert!(!connect(NAMESPACE, "client", 8444).await.unwrap(), "a client reaches the port of gateways");
    for port in [8443, 8444] {
        assert!(!connect(RUNTIME, "mcp-quiet-0", port).await.unwrap(), "a tool server reaches port {port}");
    }
}

/// Deletes a pod with its grace period, as an eviction does.
async fn delete(tenant: &FaultTenant, pod: &str) {
    let pods: Api<Pod> = Api::namespaced(tenant.client.clone(), RUNTIME);
    pods.delete(pod, &kube::api::DeleteParams::default()).await.unwrap();
}

/// Checks that no call was made twice, and that each call that was answered was made.
fn made_once(answered: &HashSet<String>) {
    let begun = marks("quiet").unwrap();
    let mut seen = HashSet::new();
    for word in &begun {
        assert!(seen.insert(word), "{word} was made twice");
    }
    for word in answered {
        assert!(seen.contains(word), "{word} was answered, but not made");
    }
}

/// An agent that calls a tool again and again.
struct Agent {
    stop: tokio::sync::watch::Sender<bool>,
    calls: tokio::task::JoinHandle<Done>,
}

/// What an agent got.
#[derive(Debug, Default)]
struct Done {
    answered: u32,
    /// Longest time without an answer to a call.
    longest_gap: Duration,
    refused: BTreeMap<String, u32>,
    broken: u32,
    words: Vec<String>,
}

impl Done {
    /// Whether nothing was refused but calls that had reached a gateway when it gave its principals up: one for each that was drained.
    fn is_refused_at_most(&self, drained: u32) -> bool {
        self.refused.iter().all(|(reason, count)| reason == "home_undecided" && *count <= drained)
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { answered, longest_gap, refused, broken, .. } = self;
        write!(
            f,
            "{answered} answered, {broken} broken, refused {refused:?}, at most {longest_gap:.1?} without an answer"
        )
    }
}

impl Agent {
    fn start(caller: Caller, number: usize) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let prefix = unique(&format!("agent-{number}"));
        let calls = tokio::spawn(async move {
            let (mut done, mut last) = (Done::default(), Instant::now());
            for call in 0_u32.. {
                if *stopped.borrow() {
                    break;
                }
                let word = format!("{prefix}-{call}");
                match caller.call_with_word("quiet", "mark", &word).await {
                    Answer::Text(text) => {
                        assert_eq!(text, word, "the answer to another call");
                        done.answered += 1;
                        done.longest_gap = done.longest_gap.max(last.elapsed());
                        last = Instant::now();
                        done.words.push(word);
                    }
                    Answer::Refused(reason) => *done.refused.entry(reason).or_default() += 1,
                    Answer::Error(error) => *done.refused.entry(error.chars().take(200).collect()).or_default() += 1,
                    Answer::TransportError(_) => done.broken += 1,
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            done.longest_gap = done.longest_gap.max(last.elapsed());
            done
        });
        Self { stop, calls }
    }

    async fn stop(self) -> Done {
        self.stop.send_replace(true);
        self.calls.await.unwrap()
    }
}
