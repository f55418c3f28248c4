//! A plain MCP client: what it sends, and what comes back, as it is on the wire.

use serde_json::{Map, Value, json};

use crate::case::Call;

/// A connection to a server.
pub(crate) trait Channel {
    /// Sends a request, and returns the messages up to its response, which is the last one.
    fn exchange(&mut self, request: &Value) -> Vec<Value>;

    /// Sends a notification.
    fn notify(&mut self, notification: &Value);
}

/// A client that keeps to one revision of MCP.
pub(crate) struct Client {
    channel: Box<dyn Channel>,
    modern: bool,
    next: u64,
    /// What the server says about itself: `serverInfo` and `instructions`.
    pub(crate) about: Value,
}

/// What came back for a call.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The response without what belongs to the connection (`jsonrpc`, `id`).
    pub(crate) response: Value,
    /// Parameters of the notifications of progress.
    pub(crate) progress: Vec<Value>,
}

pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const LEGACY: &str = "2025-11-25";

impl Client {
    /// Connects: with `initialize`, or with `server/discover` of 2026-07-28.
    pub(crate) fn connect(channel: Box<dyn Channel>, modern: bool) -> Self {
        let mut client = Self { channel, modern, next: 0, about: Value::Null };
        let result = if modern {
            client.request("server/discover", json!({})).response["result"].take()
        } else {
            let about = json!({"name": "tests", "version": "1"});
            let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": about});
            let result = client.request("initialize", params).response["result"].take();
            // An old server answers with an older revision.
            assert!(result["protocolVersion"].is_string(), "{result}");
            client.channel.notify(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
            result
        };
        let info = if modern { &result["_meta"]["io.modelcontextprotocol/serverInfo"] } else { &result["serverInfo"] };
        client.about = json!({"serverInfo": info, "instructions": result["instructions"]});
        client
    }

    /// Lists all tools, as they are listed, by name.
    pub(crate) fn tools(&mut self) -> Map<String, Value> {
        let mut tools = Map::new();
        let mut cursor = None;
        loop {
            let params = cursor.map_or_else(|| json!({}), |cursor: Value| json!({"cursor": cursor}));
            let answer = self.request("tools/list", params).response;
            for tool in answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}")) {
                tools.insert(tool["name"].as_str().unwrap().to_owned(), tool.clone());
            }
            match &answer["result"]["nextCursor"] {
                Value::Null => return tools,
                next => cursor = Some(next.clone()),
            }
        }
    }

    /// Calls a tool.
    pub(crate) fn call(&mut self, call: &Call) -> Answer {
        let mut params = json!({"name": call.tool, "arguments": call.arguments});
        if call.progress {
            params["_meta"] = json!({"progressToken": "progress"});
        }
        self.request("tools/call", params)
    }

    fn request(&mut self, method: &str, mut params: Value) -> Answer {
        self.next += 1;
        if self.modern {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
            params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({"name": "tests", "version": "1"});
        }
        let request = json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params});
        let mut messages = self.channel.exchange(&request);
        let mut response = messages.pop().unwrap_or_else(|| panic!("no answer to {request}"));
        let members = response.as_object_mut().unwrap();
        assert_eq!(members.remove("id"), Some(json!(self.next)), "{members:?}");
        assert_eq!(members.remove("jsonrpc"), Some(json!("2.0")), "{members:?}");
        let progress = messages.into_iter().filter(|message| message["method"] == "notifications/progress");
        Answer { response, progress: progress.map(|mut message| message["params"].take()).collect() }
    }
}
