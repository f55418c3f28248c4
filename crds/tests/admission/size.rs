//! The largest objects that are admitted.

use mcp_fleet_crds::admission::{MAX_SCOPE, MAX_SERVER};
use serde_json::{Value, json};

use crate::cases::merged;
use crate::support::{Cluster, until, with_argument};

/// Returns a server and a scope with tools of a thousand bytes each, and one more whose argument is a constant of
/// `extra` characters.
fn filled(tools: usize, extra: usize) -> [Value; 2] {
    // 128 bytes for the tool and 4 for its name; 128 for the argument, 1 for its name, and the text of the constant.
    let tool = |number: usize, text: usize| {
        let argument = json!({"name": "a", "type": "Const", "const": {"string": "x".repeat(text)}});
        json!({"name": format!("t{number:03}"), "class": "Read", "arguments": [argument]})
    };
    let mut tools: Vec<_> = (0..tools).map(|number| tool(number, 739)).collect();
    tools.push(tool(999, extra));
    let [server, scope] = with_argument(&json!({"name": "a", "type": "Boolean"}));
    let mut granted = tools.clone();
    for tool in &mut granted {
        tool.as_object_mut().unwrap().remove("class");
    }
    [merged(&server, &json!({"spec": {"tools": tools}})), merged(&scope, &json!({"spec": {"tools": granted}}))]
}

#[tokio::test]
async fn a_scope_is_refused_from_128_kib() {
    let cluster = Cluster::connect().await;
    // A second argument of the last tool fills what 124 tools of 1,000 bytes, the last tool with an argument of 4,096
    // characters, and the frame and the name of that second argument leave.
    let left = MAX_SCOPE as usize - 124_000 - (132 + 129 + 4096) - 129;
    let with = |length: usize| {
        let [_, mut scope] = filled(124, 4096);
        let second = json!({"name": "b", "type": "Const", "const": {"string": "x".repeat(length)}});
        scope["spec"]["tools"][124]["arguments"].as_array_mut().unwrap().push(second);
        scope
    };
    until(None, || cluster.dry_run(with(left))).await;
    let refused = format!("the spec has {} bytes, and an MCPScope may have at most {MAX_SCOPE}", MAX_SCOPE + 1);
    until(Some(&refused), || cluster.dry_run(with(left + 1))).await;
}

/// Everything that a schema lets grow without end counts: at every depth, in every kind of list, in UTF-8.
#[tokio::test]
async fn everything_long_counts() {
    let cluster = Cluster::connect().await;
    let enumerated = |length: usize| {
        let values: Vec<_> = (0..128).map(|number| format!("{number:03}{}", "x".repeat(length))).collect();
        json!({"type": "Enum", "enum": {"values": values}})
    };
    let object = |property: Value| {
        let properties: Vec<_> =
            (0..4).map(|number| merged(&property, &json!({"name": format!("p{number}")}))).collect();
        json!({"type": "Object", "object": {"properties": properties}})
    };
    let listed = |item: Value| json!({"type": "Array", "array": {"maxItems": 3, "items": item}});
    let named = |value: Value| merged(&value, &json!({"name": "a"}));
    let folder = |number: usize| format!("/{number:03}{}", "y".repeat(240));
    let folders: Vec<_> = (0..8).map(folder).collect();
    let extensions: Vec<_> = (0..32).map(|number| format!("{number:02}{}", "z".repeat(30))).collect();
    let path = json!({"type": "Path", "path": {"within": folders, "extensions": extensions}});
    let described = json!({"name": "a", "type": "Boolean", "title": "x".repeat(100), "description": "y".repeat(800)});
    let refused = Some("and an MCPScope may have at most");
    let with = |tools: usize, argument: &Value| {
        let [_, one] = with_argument(argument);
        let tools = (0..tools).map(|number| merged(&one["spec"]["tools"][0], &json!({"name": format!("t{number}")})));
        merged(&one, &json!({"spec": {"tools": tools.collect::<Vec<_>>()}}))
    };
    // Characters of four bytes.
    let wide = named(json!({"type": "Const", "const": {"string": "\u{1F600}".repeat(4000)}}));
    until(None, || cluster.dry_run(with(8, &wide))).await;
    for (tools, argument) in [
        (9, wide),
        (1, named(enumerated(1020))),
        (128, named(enumerated(0))),
        (1, named(listed(object(enumerated(300))))),
        (1, named(object(enumerated(300)))),
        (12, named(object(path))),
        (1, named(listed(object(listed(object(enumerated(120))))))),
        (8, named(json!({"type": "OneOf", "oneOf": {"rules": vec![enumerated(120); 2]}}))),
        (125, described),
    ] {
        until(refused, || cluster.dry_run(with(tools, &argument))).await;
    }
}

#[tokio::test]
async fn the_program_of_a_server_counts_in_its_size() {
    let cluster = Cluster::connect().await;
    let [server, _] = with_argument(&json!({"name": "a", "type": "Boolean"}));
    let with = |words: usize, arguments: usize, variables: usize| {
        let env: Vec<_> =
            (0..variables).map(|number| json!({"name": format!("V{number}"), "value": "x".repeat(4096)})).collect();
        merged(
            &server,
            &json!({"spec": {"source": {"stdio": {"command": vec!["y".repeat(4096); words],
            "args": vec!["y".repeat(4096); arguments], "env": env}}}}),
        )
    };
    until(None, || cluster.dry_run(with(47, 47, 47))).await;
    let refused = format!("and an MCPServer may have at most {MAX_SERVER}");
    until(Some(&refused), || cluster.dry_run(with(48, 48, 48))).await;
}

/// Two field managers list the name of every field. Such an object has to fit into a request of etcd.
#[tokio::test]
async fn a_server_of_the_largest_size_is_stored_with_two_field_managers() {
    let cluster = Cluster::connect().await;
    let [server, _] = with_argument(&json!({"name": "a", "type": "Boolean"}));
    let argument = |number: usize| json!({"name": format!("argument-{number:03}"), "type": "String", "string": {"maxLength": 200}});
    let with = |tools: usize, arguments: usize| {
        let arguments: Vec<_> = (0..arguments).map(argument).collect();
        let tool =
            |number: usize| json!({"name": format!("tool-{number:03}"), "class": "Read", "arguments": arguments});
        let tools: Vec<_> = (0..tools).map(tool).collect();
        merged(&server, &json!({"metadata": {"name": "largest"}, "spec": {"tools": tools}}))
    };
    // 140 bytes each, and as many arguments as there may be.
    let largest = with(32, 128);
    until(None, || cluster.apply_as("one", &largest)).await;
    cluster.apply_as("two", &largest).await.unwrap();
    cluster.delete(&largest).await.unwrap();
}

/// The rules on arguments cost the API server something for each argument. What a server may have is within its limits.
#[tokio::test]
async fn a_catalogue_of_the_largest_size_is_admitted() {
    let cluster = Cluster::connect().await;
    let [server, scope] = with_argument(&json!({"name": "a", "type": "Boolean"}));
    let argument = |number: usize| json!({"name": format!("a{number}"), "type": "String", "string": {"maxLength": 9, "pattern": "^[a-z]+$"}});
    let with = |object: &Value, tools: usize, arguments: usize| {
        let arguments: Vec<_> = (0..arguments).map(argument).collect();
        let tool = |number: usize| {
            let mut tool = json!({"name": format!("tool-{number}"), "class": "Read", "arguments": arguments});
            if object["kind"] == "MCPScope" {
                tool.as_object_mut().unwrap().remove("class");
            }
            tool
        };
        merged(object, &json!({"spec": {"tools": (0..tools).map(tool).collect::<Vec<_>>()}}))
    };
    for (tools, arguments) in [(512, 7), (32, 128)] {
        cluster.dry_run(with(&server, tools, arguments)).await.unwrap();
    }
    cluster.dry_run(with(&scope, 512, 0)).await.unwrap();
    let last = |object: &Value| {
        let mut object = with(object, 512, 7);
        object["spec"]["tools"][511]["arguments"] =
            (0..8).map(|n| json!({"name": format!("a{n}"), "type": "Enum"})).collect();
        object
    };
    until(Some("exactly the member named by type must be set"), || cluster.dry_run(last(&server))).await;
    let refused = "spec.tools must have at most 4096 arguments in all";
    let mut too_many = with(&server, 33, 128);
    for tool in too_many["spec"]["tools"].as_array_mut().unwrap() {
        tool["arguments"] = (0..128).map(|n| json!({"name": format!("a{n}"), "type": "Boolean"})).collect();
    }
    until(Some(refused), || cluster.dry_run(too_many.clone())).await;
    until(Some("Too many: 129"), || cluster.dry_run(with(&server, 1, 129))).await;
    until(Some("Too many: 513"), || cluster.dry_run(with(&server, 513, 0))).await;
}

#[tokio::test]
async fn metadata_is_bounded() {
    let cluster = Cluster::connect().await;
    let principal = |metadata: Value| {
        let object = json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPPrincipal", "spec": {},
            "metadata": {"name": "large", "namespace": "acme"}});
        merged(&object, &json!({"metadata": metadata}))
    };
    let labels = |count: usize| {
        let labels = (0..count).map(|number| (format!("label-{number}"), json!("x")));
        json!({"labels": labels.collect::<serde_json::Map<_, _>>()})
    };
    let finalizers = |count: usize| {
        let finalizers = (0..count).map(|number| json!(format!("test/{number}")));
        json!({"finalizers": finalizers.collect::<Vec<_>>()})
    };
    let owners = |count: usize| {
        let owner =
            |number: usize| json!({"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": format!("u-{number}")});
        json!({"ownerReferences": (0..count).map(owner).collect::<Vec<_>>()})
    };
    until(None, || cluster.dry_run(principal(labels(64)))).await;
    until(Some("metadata.labels must have at most 64 entries"), || cluster.dry_run(principal(labels(65)))).await;
    until(None, || cluster.dry_run(principal(finalizers(16)))).await;
    until(Some("metadata.finalizers must have at most 16"), || cluster.dry_run(principal(finalizers(17)))).await;
    until(None, || cluster.dry_run(principal(owners(16)))).await;
    until(Some("metadata.ownerReferences must have at most 16"), || cluster.dry_run(principal(owners(17)))).await;
}
