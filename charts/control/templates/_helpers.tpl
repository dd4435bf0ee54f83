{{- define "ambit-control.podLabels" -}}
app.kubernetes.io/name: ambit-control
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: ambit
{{- end }}

{{- define "ambit-control.labels" -}}
{{ include "ambit-control.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: ambit-control-{{ .Chart.Version }}
{{- end }}

{{- define "ambit-control.image" -}}
{{ .Values.image | default (printf "%s/ambit:%v" .Values.global.hub .Values.global.tag) }}
{{- end }}
