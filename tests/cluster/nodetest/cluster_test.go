// Package nodetest checks that a running cluster provides what the product relies on. The tests
// connect to pod addresses, so they run in the cluster's network: `cargo xtask cluster verify`
// does that.
package nodetest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	probeImage  = "mcp-fleet.local/probe:1"
	controlPort = 7000
	// settleTimeout is how long the cluster may take to act on a changed object.
	settleTimeout = 5 * time.Second
)

// cluster is a client of the cluster, with helpers that fail the test on errors.
type cluster struct {
	*testing.T
	client *kubernetes.Clientset
	web    http.Client
}

// connect returns a client of the cluster, or skips the test if no cluster is given.
func connect(t *testing.T) *cluster {
	t.Helper()
	kubeconfig := os.Getenv("MCP_FLEET_VERIFY")
	if kubeconfig == "" {
		t.Skip("needs a cluster: run `cargo xtask cluster verify`")
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t, client, http.Client{Timeout: 3 * time.Second}}
}

// namespace creates a namespace that is deleted after the test, and returns its name.
func (c *cluster) namespace(team string) string {
	c.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "verify-", Labels: map[string]string{
		"team": team, "pod-security.kubernetes.io/enforce": "restricted",
	}}}
	made, err := c.client.CoreV1().Namespaces().Create(c.Context(), namespace, metav1.CreateOptions{})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() {
		if err := c.client.CoreV1().Namespaces().Delete(context.Background(), made.Name, metav1.DeleteOptions{}); err != nil {
			c.Error(err)
		}
	})
	return made.Name
}

// pod creates a pod that runs the probe program. If dialAtStart is an address, the program
// connects to it repeatedly from its start.
func (c *cluster) pod(namespace, name, dialAtStart string) {
	c.Helper()
	yes, no, grace := true, false, int64(0)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   &yes,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name:  "probe",
				Image: probeImage,
				Env:   []corev1.EnvVar{{Name: "DIAL_AT_START", Value: dialAtStart}},
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "admin", ContainerPort: 9090}},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no,
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
				// If the pod becomes ready under a policy, then the node can still reach it.
				ReadinessProbe: &corev1.Probe{
					ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(controlPort)}},
					PeriodSeconds: 1,
				},
			}},
		},
	}
	if _, err := c.client.CoreV1().Pods(namespace).Create(c.Context(), pod, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
}

// ready waits until a pod is ready and returns its address.
func (c *cluster) ready(namespace, name string) string {
	c.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		pod, err := c.client.CoreV1().Pods(namespace).Get(c.Context(), name, metav1.GetOptions{})
		if err != nil {
			c.Fatal(err)
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return pod.Status.PodIP
			}
		}
	}
	c.Fatalf("pod %s/%s did not become ready within 60 s", namespace, name)
	return ""
}

// service creates a Service that maps ports 80 and 81 to the pod ports 8080 and 9090, and returns
// its address.
func (c *cluster) service(namespace, app string) string {
	c.Helper()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: app},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": app}, Ports: []corev1.ServicePort{
			{Name: "http", Port: 80, TargetPort: intstr.FromString("http")},
			{Name: "admin", Port: 81, TargetPort: intstr.FromString("admin")},
		}},
	}
	made, err := c.client.CoreV1().Services(namespace).Create(c.Context(), service, metav1.CreateOptions{})
	if err != nil {
		c.Fatal(err)
	}
	return made.Spec.ClusterIP
}

// policy creates a NetworkPolicy.
func (c *cluster) policy(namespace, name string, spec networkingv1.NetworkPolicySpec) {
	c.Helper()
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	if _, err := c.client.NetworkingV1().NetworkPolicies(namespace).Create(c.Context(), policy, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
}

// get sends a request from the node to the control port of a probe.
func (c *cluster) get(pod, path string) (*http.Response, error) {
	return c.web.Get(fmt.Sprintf("http://%s:%d%s", pod, controlPort, path))
}

// connects returns whether a pod can open a connection.
func (c *cluster) connects(pod, to string, port int) bool {
	c.Helper()
	response, err := c.get(pod, "/dial?address="+url.QueryEscape(fmt.Sprintf("%s:%d", to, port)))
	if err != nil {
		c.Fatalf("the node cannot reach its pod: %v", err)
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// expect waits until a pod can, or cannot, open a connection, as wanted. what names the case in
// the error.
func (c *cluster) expect(want bool, what, pod, to string, port int) {
	c.Helper()
	for end := time.Now().Add(settleTimeout); c.connects(pod, to, port) != want; {
		if time.Now().After(end) {
			c.Errorf("%s: connects is %v, want %v", what, !want, want)
			return
		}
	}
}

// startReport is a probe's report about the connections that it tried at its start.
type startReport struct {
	Done                bool
	Attempts, Connected int
}

// startReport waits until a probe has tried all its connections, and returns its report.
func (c *cluster) startReport(pod string) startReport {
	c.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		response, err := c.get(pod, "/start")
		if err != nil {
			c.Fatal(err)
		}
		var report startReport
		err = json.NewDecoder(response.Body).Decode(&report)
		response.Body.Close()
		if err != nil {
			c.Fatal(err)
		}
		if report.Done {
			return report
		}
	}
	c.Fatal("the probe did not finish its connections within 10 s")
	return startReport{}
}
