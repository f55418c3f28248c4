// A server that speaks MCP 2026-07-28 only, on the official TypeScript SDK: over HTTP on the port PORT, or else over standard input and output.
import { createServer } from "node:http";
import { toNodeHandler } from "@modelcontextprotocol/node";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";

function make() {
  const server = new McpServer({ name: "modern", version: "1.0.0" }, { instructions: "Greet people." });
  const greeting = z.object({ greeting: z.string().describe("What to say") });
  server.registerTool(
    "greet",
    {
      title: "Greet",
      description: "Greets someone",
      inputSchema: z.object({ name: z.string().describe("Who is greeted"), times: z.number().int().default(1) }),
      outputSchema: greeting,
      annotations: { idempotentHint: true },
    },
    async ({ name, times }) => {
      const structuredContent = { greeting: `Hello, ${name}! `.repeat(times).trim() };
      return { content: [{ type: "text", text: structuredContent.greeting }], structuredContent };
    },
  );
  server.registerTool(
    "steps",
    { description: "Reports progress", inputSchema: z.object({ count: z.number().int() }) },
    async ({ count }, context) => {
      const progressToken = context.mcpReq._meta?.progressToken;
      for (let progress = 1; progressToken !== undefined && progress <= count; progress++) {
        const params = { progressToken, progress, total: count, message: `step ${progress}` };
        await context.mcpReq.notify({ method: "notifications/progress", params });
      }
      return { content: [{ type: "text", text: "done", annotations: { audience: ["user"], priority: 0.5 } }] };
    },
  );
  server.registerTool("fail", { description: "Fails", inputSchema: z.object({}) }, async () => {
    throw new Error("nothing works");
  });
  return server;
}

if (process.env.PORT) {
  createServer(toNodeHandler(createMcpHandler(make, { legacy: "reject" }))).listen(Number(process.env.PORT), "127.0.0.1");
} else {
  serveStdio(make, { legacy: "reject" });
}
