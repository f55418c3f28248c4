package nodetest

import "testing"

func TestAPodReachesItselfThroughItsService(t *testing.T) {
	c := connect(t)
	namespace := c.namespace("red")
	c.pod(namespace, "web", "")
	service := c.service(namespace, "web")
	c.expect(true, "hairpin", c.ready(namespace, "web"), service, 80)
}

func TestPodsResolveServices(t *testing.T) {
	c := connect(t)
	namespace := c.namespace("red")
	c.pod(namespace, "web", "")
	c.service(namespace, "web")
	// Use another pod, because the /etc/hosts of web already contains its own name.
	c.pod(namespace, "client", "")
	c.ready(namespace, "web")
	client := c.ready(namespace, "client")
	c.expect(true, "short name", client, "web", 80)
	c.expect(true, "full name", client, "web."+namespace+".svc.cluster.local", 81)
}
