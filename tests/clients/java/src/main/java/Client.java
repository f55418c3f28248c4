import io.modelcontextprotocol.client.McpAsyncClient;
import io.modelcontextprotocol.client.McpClient;
import io.modelcontextprotocol.client.transport.HttpClientStreamableHttpTransport;
import io.modelcontextprotocol.json.McpJsonDefaults;
import io.modelcontextprotocol.json.McpJsonMapper;
import io.modelcontextprotocol.spec.McpError;
import io.modelcontextprotocol.spec.McpSchema.CallToolRequest;
import io.modelcontextprotocol.spec.McpSchema.CallToolResult;
import io.modelcontextprotocol.spec.McpSchema.JSONRPCNotification;
import io.modelcontextprotocol.spec.McpSchema.TextContent;
import io.modelcontextprotocol.spec.McpSchema.Tool;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import reactor.core.publisher.Mono;

/** The scenario of the client tests with the Java SDK (tests/clients/README.md). */
public final class Client {
    private static final McpJsonMapper JSON = McpJsonDefaults.getMapper();

    private final HttpClientStreamableHttpTransport transport;
    private final McpAsyncClient client;
    private final BlockingQueue<Double> seen = new LinkedBlockingQueue<>();
    /** The id of the newest call of the tool slow. */
    private volatile Object slow;

    private Client(String url, String token, Path ca) throws GeneralSecurityException, IOException {
        SSLContext trust = trust(ca);
        transport = HttpClientStreamableHttpTransport.builder(url)
                .endpoint(URI.create(url).getPath())
                .customizeClient(http -> http.sslContext(trust))
                .httpRequestCustomizer((request, method, uri, body, context) -> {
                    request.setHeader("Authorization", "Bearer " + token);
                    remember(body);
                })
                .build();
        client = McpClient.async(transport)
                // With it, results are held to the output schemas.
                .enableCallToolSchemaCaching(true)
                // A busy machine can take longer than the 20 seconds that are the default.
                .initializationTimeout(Duration.ofMinutes(4))
                .requestTimeout(Duration.ofMinutes(4))
                .progressConsumer(progress -> Mono.fromRunnable(() -> seen.add(progress.progress())))
                .build();
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> variables = System.getenv();
        new Client(variables.get("MCP_URL"), variables.get("MCP_TOKEN"), Path.of(variables.get("MCP_CA"))).run();
        // The SDK's threads are not daemons.
        System.exit(0);
    }

    private void run() throws Exception {
        show("connect", Map.of("version", client.initialize().block().protocolVersion()));
        List<Tool> tools = client.listTools().block().tools();
        show("list", Map.of("tools", tools.stream().map(Tool::name).toList()));
        show("call", facts(call("echo", Map.of("text", "hello"))));
        Map<String, Object> withNull = new HashMap<>(Map.of("text", "hello"));
        withNull.put("note", null);
        show("null", facts(call("echo", withNull)));
        show("refused", facts(call("echo", Map.of("text", 7))));
        show("large", facts(call("echo", Map.of("text", 725653563933458432L))));
        show("structured", facts(call("structured", Map.of("n", 7))));
        show("structured-refused", facts(call("structured", Map.of("n", -1))));
        show("structured-failed", facts(call("structured", Map.of("n", 0))));
        try {
            call("nothing", Map.of());
        } catch (McpError error) {
            show("unknown", Map.of("code", error.getJsonRpcError().code()));
        }
        client.callTool(CallToolRequest.builder("progress").arguments(Map.of("steps", 3)).progressToken("p").build())
                .block();
        // Notifications are handled beside the call.
        show("progress", Map.of("seen", List.of(seen.take(), seen.take(), seen.take())));
        show("cancel", cancel());
        CallToolResult cancelled = call("cancelled", Map.of());
        while (text(cancelled).equals("0")) {
            Thread.sleep(100);
            cancelled = call("cancelled", Map.of());
        }
        show("cancelled", facts(cancelled));
        show("restart", Map.of());
        new BufferedReader(new InputStreamReader(System.in)).readLine();
        show("again", facts(call("echo", Map.of("text", "again"))));
    }

    /** Cancels a call. This SDK has no notification of that, so the transport sends it. */
    private Map<String, Object> cancel() throws Exception {
        CallToolRequest request = CallToolRequest.builder("slow").arguments(Map.of("seconds", 60)).build();
        CompletableFuture<CallToolResult> running = client.callTool(request).toFuture();
        while (text(call("started", Map.of())).equals("0")) {
            Thread.sleep(100);
        }
        transport.sendMessage(new JSONRPCNotification("notifications/cancelled", Map.of("requestId", slow))).block();
        return facts(running.get());
    }

    private CallToolResult call(String tool, Map<String, Object> arguments) {
        return client.callTool(CallToolRequest.builder(tool).arguments(arguments).build()).block();
    }

    /** Remembers the id of a call of the tool slow, which the SDK does not tell. */
    private void remember(String body) {
        try {
            Map<?, ?> message = body == null ? Map.of() : JSON.readValue(body, Map.class);
            if (message.get("params") instanceof Map<?, ?> params && "slow".equals(params.get("name"))) {
                slow = message.get("id");
            }
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    private static String text(CallToolResult result) {
        return ((TextContent) result.content().get(0)).text();
    }

    private static Map<String, Object> facts(CallToolResult result) {
        return Map.of("isError", Boolean.TRUE.equals(result.isError()), "text", text(result));
    }

    private static void show(String step, Map<String, Object> facts) throws IOException {
        Map<String, Object> line = new HashMap<>(facts);
        line.put("step", step);
        System.out.println(JSON.writeValueAsString(line));
    }

    /** Returns a context that trusts only the certificates of a file. */
    private static SSLContext trust(Path ca) throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (var file = Files.newInputStream(ca)) {
            for (var certificate : CertificateFactory.getInstance("X.509").generateCertificates(file)) {
                store.setCertificateEntry("ca-" + store.size(), certificate);
            }
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
