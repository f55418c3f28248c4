package nodetest

import (
	"fmt"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func selector(label, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{label: value}}
}

func port(port intstr.IntOrString) []networkingv1.NetworkPolicyPort {
	return []networkingv1.NetworkPolicyPort{{Port: &port}}
}

var bothWays = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}

func TestNetworkPoliciesAreEnforced(t *testing.T) {
	c := connect(t)
	red, blue := c.namespace("red"), c.namespace("blue")
	names := map[string][]string{red: {"web", "client", "other"}, blue: {"client", "other"}}
	for namespace, pods := range names {
		for _, pod := range pods {
			c.pod(namespace, pod, "")
		}
	}
	service := c.service(red, "web")
	address := map[string]string{}
	for namespace, pods := range names {
		for _, pod := range pods {
			address[namespace+"/"+pod] = c.ready(namespace, pod)
		}
	}
	web, client, other := address[red+"/web"], address[red+"/client"], address[red+"/other"]
	stranger, strangerOther := address[blue+"/client"], address[blue+"/other"]

	// Without a policy, everything is allowed. This shows that the policies below cause the refusals.
	c.expect(true, "no policy, own namespace", client, web, 8080)
	c.expect(true, "no policy, other namespace", stranger, web, 9090)
	c.expect(true, "no policy, through the Service", stranger, service, 80)
	c.expect(true, "no policy, to another namespace", web, strangerOther, 8080)

	c.policy(red, "default-deny", networkingv1.NetworkPolicySpec{PolicyTypes: bothWays})
	c.expect(false, "default deny, own namespace", client, web, 8080)
	c.expect(false, "default deny, other namespace", stranger, web, 9090)
	c.expect(false, "default deny, through the Service", stranger, service, 80)
	c.expect(false, "default deny, to another namespace", web, strangerOther, 8080)
	c.expect(true, "default deny does not affect other namespaces", stranger, strangerOther, 8080)

	c.policy(red, "web", networkingv1.NetworkPolicySpec{
		PodSelector: *selector("app", "web"),
		Ingress: []networkingv1.NetworkPolicyIngressRule{
			{From: []networkingv1.NetworkPolicyPeer{{PodSelector: selector("app", "client")}}, Ports: port(intstr.FromString("http"))},
			{From: []networkingv1.NetworkPolicyPeer{{
				NamespaceSelector: selector("team", "blue"), PodSelector: selector("app", "client"),
			}}, Ports: port(intstr.FromInt32(9090))},
		},
	})
	c.expect(true, "namespace and pod selected", stranger, web, 9090)
	c.expect(true, "namespace and pod selected, through the Service", stranger, service, 81)
	c.expect(false, "namespace and pod selected, other port", stranger, web, 8080)
	c.expect(false, "namespace and pod selected, other port, through the Service", stranger, service, 80)
	c.expect(false, "namespace selected, pod not", strangerOther, web, 9090)
	c.expect(false, "ingress allowed, egress denied", client, web, 8080)

	c.policy(red, "client", networkingv1.NetworkPolicySpec{
		PodSelector: *selector("app", "client"),
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress: []networkingv1.NetworkPolicyEgressRule{
			{To: []networkingv1.NetworkPolicyPeer{{PodSelector: selector("app", "web")}}, Ports: port(intstr.FromInt32(8080))},
		},
	})
	c.expect(true, "egress and ingress allowed", client, web, 8080)
	// Egress rules match the port of the pod behind the Service, not the port of the Service.
	c.expect(true, "egress and ingress allowed, through the Service", client, service, 80)
	c.expect(false, "egress to another port denied", client, web, 9090)
	c.expect(false, "egress of other pods denied", other, web, 8080)

	last := int32(8999)
	first := intstr.FromInt32(8000)
	c.policy(red, "other", networkingv1.NetworkPolicySpec{
		PodSelector: *selector("app", "other"),
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress: []networkingv1.NetworkPolicyEgressRule{{
			To:    []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{stranger + "/32"}}}},
			Ports: []networkingv1.NetworkPolicyPort{{Port: &first, EndPort: &last}},
		}},
	})
	c.expect(true, "inside the block and the range", other, strangerOther, 8080)
	c.expect(false, "outside the range", other, strangerOther, 9090)
	c.expect(false, "excepted from the block", other, stranger, 8080)

	for _, policy := range []string{"default-deny", "web", "client", "other"} {
		if err := c.client.NetworkingV1().NetworkPolicies(red).Delete(t.Context(), policy, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c.expect(true, "policies deleted", strangerOther, web, 9090)
}

func TestANewPodIsIsolatedFromItsFirstPacket(t *testing.T) {
	c := connect(t)
	isolated, open := c.namespace("red"), c.namespace("blue")
	c.pod(open, "target", "")
	target := fmt.Sprintf("%s:8080", c.ready(open, "target"))
	c.policy(isolated, "default-deny", networkingv1.NetworkPolicySpec{PolicyTypes: bothWays})

	c.pod(isolated, "late", target)
	c.pod(open, "free", target)
	late, free := c.startReport(c.ready(isolated, "late")), c.startReport(c.ready(open, "free"))
	if late.Connected != 0 || late.Attempts == 0 {
		t.Errorf("the isolated pod connected in %d of %d attempts, want 0 of at least 1", late.Connected, late.Attempts)
	}
	// Each attempt times out after 20 ms, which a busy machine sometimes exceeds.
	if free.Connected < free.Attempts*9/10 {
		t.Errorf("the pod without a policy connected in only %d of %d attempts", free.Connected, free.Attempts)
	}
}
