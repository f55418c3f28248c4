// Package main is one binary with every Kubernetes program that the local cluster runs.
//
// `k8s kube-apiserver --flag …` runs the API server, and so on for each name in the table
// below. One binary shares its libraries, so it is built once and is a fifth of the size of
// seven.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// programs maps a program's name to a function that runs it with os.Args already shifted,
// and returns its exit code.
var programs = map[string]func() int{
	"etcd":                    runEtcd,
	"kube-apiserver":          func() int { return cli.Run(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() int { return cli.Run(controllers.NewControllerManagerCommand()) },
	"kube-proxy":              func() int { return cli.Run(kubeproxy.NewProxyCommand()) },
	"kube-scheduler":          func() int { return cli.Run(scheduler.NewSchedulerCommand()) },
	"kubectl":                 runKubectl,
	"kubelet":                 func() int { return cli.Run(kubelet.NewKubeletCommand(context.Background())) },
}

func runEtcd() int {
	etcdmain.Main(os.Args)
	return 0
}

// runKubectl lets kubectl print its own errors, which for API errors are friendlier than the
// bare error that cli.Run prints.
func runKubectl() int {
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
	return 0
}

func main() {
	// A link named like a program acts as that program.
	name := filepath.Base(os.Args[0])
	if _, found := programs[name]; !found && len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = os.Args[1:]
	}
	run, found := programs[name]
	if !found {
		names := strings.Join(slices.Sorted(maps.Keys(programs)), " ")
		fmt.Fprintf(os.Stderr, "usage: k8s PROGRAM [ARGUMENT…], where PROGRAM is one of: %s\n", names)
		os.Exit(2)
	}
	os.Exit(run())
}
