// Every program of a Kubernetes cluster in one static executable, so that shared code is compiled and kept
// once. The name it is called by (a symbolic link), else its first argument, says which program runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// Run functions return the process's exit code.
var programs = map[string]func() int{
	"etcd":                    etcd,
	"kube-apiserver":          of(apiserver.NewAPIServerCommand),
	"kube-controller-manager": of(manager.NewControllerManagerCommand),
	"kube-proxy":              of(proxy.NewProxyCommand),
	"kube-scheduler":          of(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubectl":                 of(func() *cobra.Command { return kubectl.NewDefaultKubectlCommand() }),
	"kubelet":                 of(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
}

func of(command func() *cobra.Command) func() int {
	return func() int { return cli.Run(command()) }
}

func main() {
	run, known := programs[filepath.Base(os.Args[0])]
	if !known && len(os.Args) > 1 {
		run, known = programs[os.Args[1]]
		os.Args = os.Args[1:]
	}
	if !known {
		names := []string{}
		for name := range programs {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Fprintln(os.Stderr, "kube: the first argument names a program:", strings.Join(names, " "))
		os.Exit(2)
	}
	os.Exit(run())
}

// etcd is one member that serves clients on one address and never waits for the disk: a test cluster's data
// need not outlive the machine.
func etcd() int {
	folder := flag.String("data-dir", "etcd", "where the data goes")
	clients := flag.String("clients", "http://127.0.0.1:2379", "URL for clients")
	peers := flag.String("peers", "http://127.0.0.1:2380", "URL for other members (there are none)")
	flag.Parse()
	config := embed.NewConfig()
	config.Dir = *folder
	config.UnsafeNoFsync = true
	config.LogLevel = "warn"
	for _, address := range []struct {
		text   string
		fields []*[]url.URL
	}{
		{*clients, []*[]url.URL{&config.ListenClientUrls, &config.AdvertiseClientUrls}},
		{*peers, []*[]url.URL{&config.ListenPeerUrls, &config.AdvertisePeerUrls}},
	} {
		parsed, err := url.Parse(address.text)
		if err != nil {
			return failed(err)
		}
		for _, field := range address.fields {
			*field = []url.URL{*parsed}
		}
	}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return failed(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-stop:
		server.Close()
		return 0
	case err := <-server.Err():
		return failed(err)
	}
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "etcd:", err)
	return 1
}
